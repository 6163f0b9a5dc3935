"""``fusionkit show data=NAME``: what a run would read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fusionkit import cli

#: Status, stdout and stderr of ``fusionkit show data=table data.path=t.csv data.id=id ...``.
Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    monkeypatch.chdir(tmp_path)
    lines = [f"{i:02d},{i * 7 % 20},{'mf'[i % 3 == 0]},{'' if i < 4 else i},{'ab'[i % 2]},x,{i / 8}" for i in range(20)]
    Path("t.csv").write_text("\n".join(["id,p__age,p__sex,s__0,label,note,Größe", *lines]) + "\n")

    def call(*argv: str) -> tuple[int, str, str]:
        status = cli.main(["show", "data=table", "data.path=t.csv", "data.id=id", *argv])
        out, err = capsys.readouterr()
        assert sorted(one.name for one in Path().iterdir()) == ["t.csv"]
        return status, out, err

    return call


def test_a_table(show: Show) -> None:
    status, out, err = show("data.label=label", 'data.drop=[note,"Größe"]')
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "data: 20 rows of t.csv; views with their widths: p (3), s (1)",
        "note: Left out by data.drop: Größe, note.",
        "task: classification, from 'label': text, 2 different ones: classes; positive: 'b'",
        "rows: 16 training, 4 test",
        "view  width  absent  columns",
        "p     3      0 rows  p__age, p__sex (f, m)",
        "s     1      4 rows  s__0",
    ]


def test_json(show: Show) -> None:
    status, out, _ = show("data.label=[s__0,p__age]", "data.drop=[note,label,s__0]", 'data.label="Größe"', "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["task"], found["targets"], found["metric"]) == ("regression", ["Größe"], "r2")
    assert (found["rows"], found["dims"], found["columns"]) == (20, [3], {"p": ["p__age", "p__sex (f, m)"]})
    assert found["parts"] == {"training": 16, "validation": 0, "test": 4}
    assert found["notes"] == ["Left out by data.drop: label, note, s__0."]


def test_a_name_that_needs_quotes(show: Show) -> None:
    status, out, err = show("data.label=Größe")
    assert (status, out) == (2, "")
    assert "'data.label=\"Größe\"'" in err


@pytest.mark.parametrize(
    ("overrides", "status", "found"),
    [
        (["data.label=lable"], 1, "Did you mean 'label'?"),
        (["data.label=label"], 1, "'note' of"),
        (["data.label=label", "data.drop=note", "data.drp=x"], 2, "Did you mean 'data.drop'?"),
        ([], 2, "data.label should be given"),
    ],
)
def test_mistakes(overrides: list[str], status: int, found: str, show: Show) -> None:
    given, out, err = show(*overrides)
    assert (given, out) == (status, "")
    assert found in err
