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
    from fusionkit.hookspecs import Spec, hookimpl
    from fusionkit.registry import fabrications, fusions, refresh

    __version__: str

__all__ = [
    "ConfigError",
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

# Name -> (module, attribute); None: the module itself, for those submodules that are used without importing them.
_HOME: dict[str, tuple[str, str | None]] = {
    "ConfigError": ("fusionkit.errors", "ConfigError"),
    "DimsError": ("fusionkit.errors", "DimsError"),
    "Fabrication": ("fusionkit.fabrication", "Fabrication"),
    "Fusion": ("fusionkit.fusion", "Fusion"),
    "FusionError": ("fusionkit.errors", "FusionError"),
    "OptionError": ("fusionkit.errors", "OptionError"),
    "Projection": ("fusionkit.core.projection", "Projection"),
    "RegistryError": ("fusionkit.errors", "RegistryError"),
    "Spec": ("fusionkit.hookspecs", "Spec"),
    "Traits": ("fusionkit.fusion", "Traits"),
    "check": ("fusionkit.contract.runner", "check"),
    "config": ("fusionkit.config", None),
    "cost": ("fusionkit.core.costing", "cost"),
    "create": ("fusionkit.core.factory", "create"),
    "create_fabrication": ("fusionkit.core.factory", "create_fabrication"),
    "errors": ("fusionkit.errors", None),
    # These two are packages and functions at once: see fusionkit/registry/listing.py.
    "fabrications": ("fusionkit.fabrications", None),
    "fusions": ("fusionkit.fusions", None),
    "hookimpl": ("fusionkit.hookspecs", "hookimpl"),
    "load": ("fusionkit.experiment.load", "load"),
    "refresh": ("fusionkit.registry", "refresh"),
    "registry": ("fusionkit.registry", None),
    "testing": ("fusionkit.testing", None),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOME:
        module, attribute = _HOME[name]
        value = importlib.import_module(module)
        if attribute is not None:
            value = getattr(value, attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata  # Its time would show in ``import fusionkit``.

    try:
        return metadata.version("fusionkit")
    except metadata.PackageNotFoundError:  # A source tree that is not installed.
        import tomllib

        try:
            with open(f"{__path__[0]}/../pyproject.toml", "rb") as file:
                return str(tomllib.load(file)["project"]["version"])
        except FileNotFoundError:
            return "0.0.0"
