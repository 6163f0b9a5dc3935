"""The README's Python runs as it stands."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import fusionkit
from fusionkit import cli
from fusionkit.experiment.results import MODEL
from tests.pages import python_blocks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(after: str) -> str:
    return python_blocks(README[README.index(after) :])[0]


def test_ten_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[Path] = []
    monkeypatch.setattr(fusionkit, "load", loaded.append)  # There is no run here; the test of `load` has one.
    monkeypatch.chdir(tmp_path)
    for name in ("2026-01-02/10-00-00-000000", "2026-01-02/09-00-00-000000", "2025-12-31/23-00-00-000000"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / MODEL).touch()
    (tmp_path / "outputs/2026-01-02/11-00-00-000000").mkdir()  # A run that failed.
    exec(block("## Ten lines"), {})
    assert capsys.readouterr().out.splitlines() == ["64 3360", "True"]
    assert loaded == [Path("outputs/2026-01-02/10-00-00-000000")]


@pytest.mark.usefixtures("empty_directory")
def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = README[README.index("## Your own table") :]
    table, commands, shown, predictions = (
        block.splitlines() for block in re.findall(r"```\n(.*?)```", text, re.DOTALL)[:4]
    )
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({name: generator.standard_normal(600).round(3) for name in table[0].split(",")})
    frame["patient"] = [f"p{i:04d}" for i in range(600)]
    frame["clinical__age"] = generator.integers(20, 80, 600)
    frame["clinical__sex"] = generator.choice(["male", "female"], 600)
    frame["outcome"] = np.where(frame["scan__0"] > 0, "healthy", "ill")
    frame.to_csv("patients.csv", index=False)
    frame.drop(columns="outcome").head(3).to_csv("new.csv", index=False)
    for command in commands:
        quick = ["train.epochs=1"] if command.startswith("fusionkit run") else []
        assert cli.main([*shlex.split(command)[1:], *quick]) == 0
    out, err = capsys.readouterr()
    stable = [line for line in shown if line.startswith(("data:", "task:", "rows:", "predict "))]
    assert len(stable) == 4
    assert {" ".join(line.split()) for line in stable} <= {" ".join(line.split()) for line in (out + err).splitlines()}
    written = Path("predictions.csv").read_text().splitlines()
    assert written[0] == predictions[0]
    assert [line.split(",")[0] for line in written[1:]] == ["p0000", "p0001", "p0002"]


def test_the_search_finds_something(capsys: pytest.CaptureFixture[str]) -> None:
    code = block("As a scikit-learn estimator")
    quick = code.replace("epochs=20", "epochs=1").replace('"n": [16, 64]}', '"n": [16]}, cv=2')
    assert "cv=2" in quick
    exec(quick, {})
    assert re.fullmatch(r"0\.\d+\n", capsys.readouterr().out)


@pytest.mark.exhaustive
def test_the_operator_passes_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_fusions_gram")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(block("## Add an operator").replace("class Gram", "__name__ = 'my_fusions_gram'\nclass Gram"), module.__dict__)
    report = fusionkit.check(module.__dict__["Gram"])
    assert report.ok, [result for result in report.results if result.status in ("failed", "error")]


@pytest.mark.exhaustive
def test_the_estimator_is_searched(capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("As a scikit-learn estimator").replace("epochs=20", "epochs=5"), {})
    assert float(capsys.readouterr().out) > 0.9


def test_pictures_exist() -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / path).is_file()
