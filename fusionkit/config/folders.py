"""Finds the folders of configs: fusionkit's own, and those of plugins, which are not imported for it."""

from __future__ import annotations

from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from fusionkit import registry
from fusionkit.errors import ConfigError


@lru_cache(maxsize=1)
def conf_dir() -> Path:
    """Return the absolute path of fusionkit's own folder of configs: inside the wheel, else beside the sources.

    Raises:
        ConfigError: the installation has no such folder.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"The configs of fusionkit should be in {package / 'conf'}; found no config.yaml there.")


def plugin_folders() -> list[tuple[str, str]]:
    """Return ``(distribution, search path)`` for the configs that plugins offer, in the order of the registry.

    A ``pkg://`` path of a package on disk is given as ``file://``, because Hydra would import the package to read it.
    """
    paths = registry.conf_paths()
    return [(name, f"file://{folder}" if (folder := folder_of(path)) else path) for name, path in paths]


def folder_of(path: str) -> Path | None:
    """Return the folder of a search path (``pkg://``, ``file://`` or plain), or None when it does not exist on disk."""
    scheme, separator, rest = path.rpartition("://")
    if not separator or scheme == "file":
        return Path(rest) if Path(rest).is_dir() else None
    if scheme != "pkg":
        return None
    top, *below = rest.strip("/").replace("/", ".").split(".")
    try:
        # Only the top-level name is looked up: finding `a.b` would import `a`.
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = PathFinder.find_spec(top)
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(location).joinpath(*below)
        if folder.is_dir():
            return folder
    return None
