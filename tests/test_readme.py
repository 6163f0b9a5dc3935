"""The README's Python runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fusionkit
from fusionkit.experiment.load import load

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(after: str) -> str:
    match = re.search(r"```python\n(.*?)```", README[README.index(after) :], re.DOTALL)
    assert match is not None
    return match[1]


def test_ten_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusionkit, "load", lambda run_dir: load)  # There is no run here; the test of `load` has one.
    exec(block("## Ten lines"), {})
    assert capsys.readouterr().out.splitlines() == ["64 3360", "True"]


def test_the_operator_passes_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_fusions_gram")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(block("## Add an operator").replace("class Gram", "__name__ = 'my_fusions_gram'\nclass Gram"), module.__dict__)
    report = fusionkit.check(module.__dict__["Gram"])
    assert report.ok, [result for result in report.results if result.status in ("failed", "error")]


def test_the_estimator_is_searched(capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("As a scikit-learn estimator").replace("epochs=20", "epochs=5"), {})
    assert float(capsys.readouterr().out) > 0.9


def test_pictures_exist() -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / path).is_file()
