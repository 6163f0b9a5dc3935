"""What the distribution offers: names, presets, and that listing imports no operator."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import fusionkit
import pytest
from fusionkit.testing import isolated_registry

import fusionkit_attention.plugin
from fusionkit_attention.plugin import OPERATORS

#: Preset -> operator.
PRESETS = {"gmu": "gated", "mag": "adaptation_gate", "mmtm": "squeeze_excite"}
FOLDER = Path(fusionkit_attention.__file__).parent
ROOT = Path(__file__).parents[1]


def test_names() -> None:
    with isolated_registry(fusionkit_attention.plugin):
        assert set(OPERATORS) <= set(fusionkit.fusions())
        for name in OPERATORS:
            assert fusionkit.registry.load("fusion", name).__name__ == OPERATORS[name][0]


@pytest.mark.parametrize("name", OPERATORS)
def test_docstring(name: str) -> None:
    text = " ".join(str(fusionkit.registry.load("fusion", name).__doc__).split())
    assert text.startswith("`")
    assert re.search(r"Source: .*\d{4}", text)
    assert "l = " in text
    assert "explain" in text


def test_presets() -> None:
    found = {path.name for path in (files("fusionkit_attention") / "conf" / "fusion").iterdir()}
    assert found == {f"{name}.yaml" for name in PRESETS}


@pytest.mark.parametrize(("preset", "name"), PRESETS.items())
def test_preset(preset: str, name: str) -> None:
    text = (files("fusionkit_attention") / "conf" / "fusion" / f"{preset}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    keys = {line.partition(":")[0]: i for i, line in enumerate(lines) if line and line[0] not in "# "}
    options = set(inspect.signature(fusionkit.registry.load("fusion", name)).parameters)
    assert options - set(keys) == {"require_parameters", "dtype"}
    for key, i in keys.items():
        assert lines[i - 1].startswith("#") or key.startswith("_") or key == "name", f"{key} should have a comment"
    own, other = (fusionkit.config.compose([f"fusion={key}"])["fusion"] for key in (preset, name))
    assert own.pop("postprocess") == (
        [{"name": "layer_norm"}, {"name": "dropout", "p": 0.5}] if preset == "mag" else other["postprocess"]
    )
    other.pop("postprocess")
    assert own == other


def test_configs_are_in_the_wheel() -> None:
    # Hatchling takes every file of the package that git does not ignore.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"] == {"targets": {"wheel": {"packages": ["fusionkit_attention"]}}}
    assert fusionkit_attention.plugin.fusionkit_conf() == ["pkg://fusionkit_attention.conf"]
    assert len(list((FOLDER / "conf" / "fusion").glob("*.yaml"))) == len(PRESETS)


def test_core_names_only() -> None:
    # What every plugin may use: the public names, and the modules that the documentation names.
    public = {"fusionkit", "fusionkit.errors", "fusionkit.fusion"}
    of_bench = {"fusionkit.bench", "fusionkit.bench.references"}
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        core = {module for module in used if module and module.split(".")[0] == "fusionkit"}
        assert core <= (public | of_bench if path.name == "bench.py" else public), path.name


def test_listing_imports_nothing() -> None:
    code = "import sys, fusionkit_attention.plugin as p; p.fusionkit_fusions(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_table_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("## Formulas")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert rows == list(OPERATORS)
