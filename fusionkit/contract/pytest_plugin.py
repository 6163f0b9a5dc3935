"""The pytest plugin (entry point ``pytest11``).  It offers one fixture, and imports nothing before that is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest


@pytest.fixture
def isolated_registry() -> Iterator[Callable[..., None]]:
    """Give the test a registry with the core and nothing else; call it with plugin modules to add them.

    ::

        def test_it(isolated_registry):
            isolated_registry(my_package.plugin)
            assert "gram" in fusionkit.fusions()
    """
    from fusionkit import registry

    with ExitStack() as stack:
        stack.enter_context(registry.isolated())

        def add(*modules: object) -> None:
            for module in modules:
                registry.register(module)

        yield add
