"""The pytest plugin (entry point ``pytest11``): one fixture, which imports fusionkit when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def isolated_registry() -> Iterator[Callable[..., None]]:
    """Give the test a registry with the core only; call the fixture with plugin modules to add them.

    ::

        def test_it(isolated_registry):
            isolated_registry(my_package.plugin)
            assert "gram" in fusionkit.fusions()
    """
    from fusionkit import registry

    def add(*modules: object) -> None:
        for module in modules:
            registry.register(module)

    with registry.isolated():
        yield add
