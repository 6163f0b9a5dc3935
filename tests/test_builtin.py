"""The first-party plugin: every operator of the folders is offered, through the hooks that every plugin has."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusionkit import Fabrication, Fusion, Spec, builtin, fabrications, fusions, registry
from fusionkit.registry.loading import HOOKS

OFFERS = [("fusion", builtin.fusionkit_fusions()), ("fabrication", builtin.fusionkit_fabrications())]
ENTRIES = [
    pytest.param(kind, name, spec, id=f"{kind}-{name}") for kind, offers in OFFERS for name, spec in offers.items()
]


@pytest.mark.parametrize(("kind", "name", "spec"), ENTRIES)
def test_entry(kind: registry.Operator, name: str, spec: Spec) -> None:
    cls = registry.load(kind, name)
    assert issubclass(cls, Fusion if kind == "fusion" else Fabrication)
    assert spec.target == f"{cls.__module__}:{cls.__qualname__}"
    assert registry.key_of(cls) == name
    assert spec.summary


@pytest.mark.parametrize("name", builtin.DATASETS)
def test_data_set(name: str) -> None:
    record = registry.resolve("dataset", name)
    assert registry.dataset(name).__name__ == name
    assert all(record.to_dict()[part] for part in ("summary", "task", "licence", "citation", "origin"))


@pytest.mark.parametrize(("folder", "offers"), [(fusions, OFFERS[0][1]), (fabrications, OFFERS[1][1])])
def test_the_folder_is_the_catalogue(folder: object, offers: dict[str, Spec]) -> None:
    file = folder.__file__  # type: ignore[attr-defined]
    modules = {path.stem for path in Path(file).parent.glob("*.py") if not path.stem.startswith("_")}
    registered = {str(spec.target).partition(":")[0].rpartition(".")[2] for spec in offers.values()}
    assert registered == modules


def test_it_is_a_plugin_like_any_other() -> None:
    (core,) = [plugin for plugin in registry.plugins() if plugin.core]
    assert (core.name, core.target, core.status) == ("builtin", "fusionkit.builtin", "loaded")
    marked = {name for name in vars(builtin) if hasattr(getattr(builtin, name), "fusionkit_impl")}
    assert marked <= set(HOOKS)
