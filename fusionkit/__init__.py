"""fusionkit: the registry, the configuration and the conformance kit for tensor fusion.

Find every fusion operator installed on a machine, build it from a config, prove that it keeps its contract, compare it
with the others on real data::

    import fusionkit
    fusion = fusionkit.create("parameterized_concatenation", dims=[76, 216], n=64)

Every name here is loaded when it is first used: ``import fusionkit`` imports neither torch nor hydra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionkit import config as config
    from fusionkit import errors as errors
    from fusionkit import registry as registry
    from fusionkit import testing as testing
    from fusionkit.contract.runner import check
    from fusionkit.core.costing import cost
    from fusionkit.core.factory import create, create_fabrication
    from fusionkit.core.projection import Projection
    from fusionkit.errors import ConfigError, DimsError, FusionError, OptionError, RegistryError
    from fusionkit.experiment.load import load
    from fusionkit.fabrication import Fabrication
    from fusionkit.fusion import Fusion, Traits
    from fusionkit.hookspecs import DatasetSpec, Spec, hookimpl
    from fusionkit.registry import fabrications, fusions, refresh

    __version__: str

__all__ = [
    "ConfigError",
    "DatasetSpec",
    "DimsError",
    "Fabrication",
    "Fusion",
    "FusionError",
    "OptionError",
    "Projection",
    "RegistryError",
    "Spec",
    "Traits",
    "__version__",
    "check",
    "cost",
    "create",
    "create_fabrication",
    "fabrications",
    "fusions",
    "hookimpl",
    "load",
    "refresh",
]

#: The public names, by the module that each comes from.
_NAMES = {
    "fusionkit.contract.runner": ("check",),
    "fusionkit.core.costing": ("cost",),
    "fusionkit.core.factory": ("create", "create_fabrication"),
    "fusionkit.core.projection": ("Projection",),
    "fusionkit.errors": ("ConfigError", "DimsError", "FusionError", "OptionError", "RegistryError"),
    "fusionkit.experiment.load": ("load",),
    "fusionkit.fabrication": ("Fabrication",),
    "fusionkit.fusion": ("Fusion", "Traits"),
    "fusionkit.hookspecs": ("DatasetSpec", "Spec", "hookimpl"),
    "fusionkit.registry": ("refresh",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
#: Submodules, imported when they are used.  ``fusions`` and ``fabrications`` can also be called: registry/listing.py.
_SUBMODULES = ("config", "errors", "fabrications", "fusions", "registry", "testing")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("fusionkit._util.distribution").version()
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"fusionkit.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
