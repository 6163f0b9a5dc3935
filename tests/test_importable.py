"""Every path that other packages, configs and run directories rely on: it may move inside, but must stay importable."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pkgutil import resolve_name

import pytest

import fusionkit

#: module -> names that are public in it
NAMES = {
    "fusionkit": [
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
        "check",
        "cost",
        "create",
        "create_fabrication",
        "fabrications",
        "fusions",
        "hookimpl",
        "load",
        "refresh",
    ],
    "fusionkit.bench.timing": ["interleaved", "ratio"],
    "fusionkit.builtin": ["fusionkit_fusions", "fusionkit_fabrications"],
    "fusionkit.cli": ["main"],
    "fusionkit.config": ["allow", "build", "compose", "conf_dir", "config_hash", "node"],
    "fusionkit.contract": [],
    "fusionkit.contract.pytest_plugin": [],
    "fusionkit.contract.rules": ["equal", "expect", "rule", "skip"],
    "fusionkit.contract.subject": ["Subject"],
    "fusionkit.contract.tracking": ["Allocations"],
    "fusionkit.errors": ["ConfigError", "DimsError", "FusionError", "OptionError", "RegistryError", "nearest"],
    "fusionkit.experiment": ["FusionClassifier", "FusionRegressor", "train"],
    "fusionkit.fabrication": ["Fabrication"],
    "fusionkit.fusion": ["Fusion", "Traits", "check_size", "in_place_ok", "FusionOptions"],
    "fusionkit.registry": ["find", "isolated", "load", "names", "plugins", "records", "register", "resolve"],
    "fusionkit.testing": ["parametrize_with_checks"],
}
PATHS = [f"{module}:{name}" if name else module for module, names in NAMES.items() for name in (names or [""])]


@pytest.mark.parametrize("path", PATHS)
def test_path(path: str) -> None:
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    assert not name or hasattr(found, name)


def test_everything_of_testing() -> None:
    import fusionkit.testing

    assert all(hasattr(fusionkit.testing, name) for name in fusionkit.testing.__all__)


@pytest.mark.exhaustive
def test_each_path_is_importable_first() -> None:
    """No path relies on another module's import: imported in the reverse order, in one process, all are found."""
    code = f"from pkgutil import resolve_name\nfor path in {PATHS[::-1]}: resolve_name(path)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_targets_of_configs() -> None:
    assert resolve_name("fusionkit.create") is fusionkit.create
    assert resolve_name("fusionkit.create_fabrication") is fusionkit.create_fabrication


def test_the_resolver_of_the_name_of_a_run() -> None:
    from omegaconf import OmegaConf

    fusionkit.config.compose([])
    assert OmegaConf.has_resolver("fusionkit.run_name")
