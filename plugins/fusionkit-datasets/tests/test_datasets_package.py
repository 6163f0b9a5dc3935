"""What the distribution offers: names, what is known about the data, runs of them, and what listing imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from fusionkit import cli
from tiny_sets import real, write_fashion, write_mnist, write_satellite

import fusionkit_datasets.plugin
from fusionkit_datasets.plugin import DATASETS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TINY: dict[str, Callable[[Path], Path]] = {
    "satellite": lambda folder: write_satellite(folder, rows=20),
    "multiview_mnist": lambda folder: write_mnist(folder / "multiview_mnist.hdf5", rows=20),
    "fashion_halves": lambda folder: write_fashion(folder, {"train": 16, "t10k": 4}),
}


def result(folder: Path, *words: str) -> dict[str, Any]:
    """Return the record of a run."""
    assert cli.main(["run", *words, f"hydra.run.dir={folder}"]) == 0
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@pytest.mark.parametrize("name", DATASETS)
def test_a_run(name: str, tmp_path: Path) -> None:
    path = TINY[name](tmp_path)
    words = [f"data={name}", f"data.path='{path}'", "train.epochs=1", "train.batch_size=4", "n=4"]
    found = result(tmp_path / "run", *words)
    assert (found["data"]["name"], found["data"]["rows"], found["data"]["test_rows"]) == (name, 20, 4)
    assert found["task"] == "classification"


@pytest.mark.parametrize("name", DATASETS)
def test_a_set_that_is_not_there_is_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", f"data={name}", f"data.path='{tmp_path}'", f"hydra.run.dir={tmp_path}/run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: data\.path should be \S+, or the folder that has it; found no file \S+\.", line)


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--kind", "dataset"]) == 0
    listed = capsys.readouterr().out
    for name, spec in DATASETS.items():
        assert re.search(rf"(?m)^dataset +{name} .*{re.escape(spec.summary)}", listed)
        assert cli.main(["show", name]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert all(text in shown for text in (spec.licence, spec.citation, spec.origin))


def test_the_readme_says_what_the_specs_say() -> None:
    text = " ".join(README.split())
    for name, spec in DATASETS.items():
        assert f"| `{name}` |" in README
        for said in (spec.licence, spec.citation, spec.origin.partition(": ")[2]):
            assert said in text, name


@pytest.mark.parametrize(
    ("name", "options", "bound"),
    [("satellite", ["model.encoder=mlp", "train.input_dropout=0.05"], 0.914), ("multiview_mnist", [], 0.951)],
)
def test_accuracy_of_five_folds(name: str, options: list[str], bound: float, tmp_path: Path) -> None:
    path, _ = real(name)
    words = [f"data={name}", *([f"data.path='{path}'"] if path else []), *options]
    found = [result(tmp_path / str(fold), *words, f"data.fold={fold}") for fold in range(5)]
    assert fmean(record["metrics"]["accuracy"] for record in found) >= bound


def test_core_names_only() -> None:
    for path in Path(fusionkit_datasets.plugin.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module for module in used if module and module.split(".")[0] == "fusionkit"} <= {"fusionkit"}, path.name


def test_listing_imports_no_reader() -> None:
    code = (
        "import sys, fusionkit_datasets.plugin as p; p.fusionkit_datasets(); "
        "print([name for name in ('torch', 'rdata', 'h5py', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
