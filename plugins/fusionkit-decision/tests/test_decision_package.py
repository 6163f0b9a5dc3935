"""What the distribution offers: names, configs, and that listing imports no operator."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import fusionkit
import pytest
from fusionkit.config import build, compose
from fusionkit.testing import isolated_registry

import fusionkit_decision.plugin
from fusionkit_decision.plugin import OPERATORS

#: Config -> operator, and the options that are not its defaults.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "log_pool": ("log_pool", {"postprocess": {"name": "layer_norm"}}),
    "linear_pool": ("linear_pool", {"postprocess": {"name": "layer_norm"}}),
    "poe": ("gaussian_product", {"prior": True}),
    "mopoe": ("gaussian_mixture", {"subsets": True}),
}


def test_names() -> None:
    with isolated_registry(fusionkit_decision.plugin):
        assert set(OPERATORS) <= set(fusionkit.fusions())
        for name, (cls, _) in OPERATORS.items():
            assert fusionkit.registry.load("fusion", name).__name__ == cls


def test_every_config_is_known() -> None:
    folder = files("fusionkit_decision") / "conf" / "fusion"
    assert {path.name for path in folder.iterdir()} == {f"{name}.yaml" for name in CONFIGS}


@pytest.mark.parametrize("config", CONFIGS)
def test_config_has_every_option(config: str) -> None:
    text = (files("fusionkit_decision") / "conf" / "fusion" / f"{config}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    keys = {line.partition(":")[0]: i for i, line in enumerate(lines) if line and line[0] not in "# "}
    options = set(inspect.signature(fusionkit.registry.load("fusion", CONFIGS[config][0])).parameters)
    assert options - set(keys) == {"require_parameters", "dtype"}
    for key, i in keys.items():
        assert lines[i - 1].startswith("#") or key.startswith("_") or key == "name", f"{key} should have a comment"


@pytest.mark.parametrize("config", CONFIGS)
def test_config_composes(config: str) -> None:
    name, changed = CONFIGS[config]
    composed = compose([f"fusion={config}", "dims=[4,4,4]"])["fusion"]
    op: Any = build(composed)
    assert op.name == name
    defaults = {key: option.default for key, option in inspect.signature(type(op)).parameters.items()}
    differing = {key: value for key, value in composed.items() if key in defaults and value != defaults[key]}
    assert differing == {**changed, "name": name, "dims": [4, 4, 4], "device": "cpu"}


@pytest.mark.parametrize("name", OPERATORS)
def test_docstring(name: str) -> None:
    text: Any = fusionkit.registry.load("fusion", name).__doc__
    assert text.startswith("`")
    flat = " ".join(text.split())
    assert re.search(r"Source: .*\d{4}", flat) or name == "confidence_pool"
    assert "l = " in flat
    assert "One view" in flat
    assert "row without any view" in flat


def test_tables_of_the_readme() -> None:
    # A | inside a cell would shift the columns.
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for header, rule, *rows in tables:
        assert {line.count("|") for line in (header, rule, *rows)} == {header.count("|")}, header
    assert all(f"| `{name}` | `" in text for name in OPERATORS if name != "comparison")


def test_core_names_only() -> None:
    # What every plugin may use: the public names, and the modules that the documentation names.
    public = {"fusionkit", "fusionkit.errors", "fusionkit.fusion"}
    of_bench = {"fusionkit.bench", "fusionkit.bench.references"}
    for path in Path(fusionkit_decision.plugin.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        core = {module for module in used if module and module.split(".")[0] == "fusionkit"}
        assert core <= (public | of_bench if path.name == "bench.py" else public), path.name


def test_listing_imports_nothing() -> None:
    code = "import sys, fusionkit_decision.plugin as p; p.fusionkit_fusions(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
