"""What the distribution offers: names, configs, and that listing imports no operator."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import fusionkit
import pytest
from fusionkit.testing import isolated_registry

import fusionkit_bilinear.plugin
from fusionkit_bilinear.plugin import OPERATORS


def test_names() -> None:
    with isolated_registry(fusionkit_bilinear.plugin):
        assert set(OPERATORS) <= set(fusionkit.fusions())
        for name, (cls, _) in OPERATORS.items():
            assert fusionkit.registry.load("fusion", name).__name__ == cls


@pytest.mark.parametrize("name", OPERATORS)
def test_config_has_every_option(name: str) -> None:
    text = (files("fusionkit_bilinear") / "conf" / "fusion" / f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    keys = {line.partition(":")[0]: i for i, line in enumerate(lines) if line and line[0] not in "# "}
    options = set(inspect.signature(fusionkit.registry.load("fusion", name)).parameters)
    assert options - set(keys) == {"require_parameters", "dtype"}
    for key, i in keys.items():
        assert lines[i - 1].startswith("#") or key.startswith("_") or key == "name", f"{key} should have a comment"


@pytest.mark.parametrize("name", OPERATORS)
def test_docstring(name: str) -> None:
    text = " ".join(str(fusionkit.registry.load("fusion", name).__doc__).split())
    assert text.startswith("`")
    # Where in which paper.
    assert re.search(r"Source: .*\d{4}.*(equations?|sections?|algorithm) ", text)
    assert "l = " in text
    assert "one view" in text.lower()


def test_core_names_only() -> None:
    # What every plugin may use: the public names, and the modules that the documentation names.
    public = {"fusionkit", "fusionkit.errors", "fusionkit.fusion"}
    of_bench = {"fusionkit.bench", "fusionkit.bench.references"}
    for path in Path(fusionkit_bilinear.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        core = {module for module in used if module and module.split(".")[0] == "fusionkit"}
        assert core <= (public | of_bench if path.name == "bench.py" else public), path.name


def test_listing_imports_nothing() -> None:
    code = "import sys, fusionkit_bilinear.plugin as p; p.fusionkit_fusions(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
