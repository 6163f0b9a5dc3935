"""The command line of ``fusionkit new``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fusionkit import cli


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_new(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "fusionkit-gram", "--fusion", "gram"]) == 0
    assert capsys.readouterr() == (
        "written: fusionkit-gram, the package fusionkit_gram with the fusion gram\n"
        "next: cd fusionkit-gram && pip install -e '.[test]' && pytest\n",
        "",
    )
    assert (work / "fusionkit-gram/fusionkit_gram/gram.py").is_file()


def test_here(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "my_band").mkdir()
    monkeypatch.chdir(work / "my_band")
    assert cli.main(["new", ".", "--fabrication", "band"]) == 0
    assert (work / "my_band/my_band/band.py").is_file()


def test_without_git(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(work))
    assert cli.main(["new", "fusionkit-gram", "--fusion", "gram"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == (
        "note: without git and a place to keep the template, this package cannot be updated to later templates"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["x1"], "fusionkit new should get one of --fusion NAME, --fabrication NAME and --update; found none."),
        (
            ["x1", "--fusion", "a", "--fabrication", "b"],
            "fusionkit new should get one of --fusion NAME, --fabrication NAME and --update; "
            "found --fusion and --fabrication.",
        ),
        (
            ["x1", "--fusion", "A"],
            "the name of the new fusion should match [a-z][a-z0-9_]*, and be none of null, true, false, inf, nan; "
            "found 'A'.",
        ),
        (
            ["x1", "--fusion", "mean"],
            "the name of the new fusion should be free; found 'mean', a fusion of tensor-fusionkit.",
        ),
        (
            ["x1", "--update"],
            "DIR should hold a package that fusionkit new wrote; found no .copier-answers.yml in {x1}.",
        ),
    ],
)
def test_wrong_usage(work: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    assert cli.main(["new", *argv]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].lower() == f"error: {message.format(x1=work / 'x1')}".lower()
    assert list(work.iterdir()) == []


def test_without_copier(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "copier", None)
    assert cli.main(["new", "fusionkit-gram", "--fusion", "gram"]) == 2
    assert capsys.readouterr().err == (
        "error: fusionkit new should find copier: pip install 'tensor-fusionkit[new]'; found no module 'copier'.\n"
    )
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "Error: Missing argument 'DIR'."),
        (["x1", "--fusion"], "Error: Option '--fusion' requires an argument."),
        (
            ["x1", "--fabrication", "a", "--parameters"],
            "--parameters should be given with --fusion; found --fabrication.",
        ),
        (["x1", "--fus", "a"], "Error: No such option '--fus'. Did you mean '--fusion'?"),
    ],
)
def test_a_wrong_command_line(work: Path, capsys: pytest.CaptureFixture[str], argv: list[str], sentence: str) -> None:
    assert cli.main(["new", *argv]) == 2
    assert capsys.readouterr().err.endswith(f"{sentence}\n")
    assert list(work.iterdir()) == []


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "--help"]) == 0
    assert "Examples:\n    fusionkit new fusionkit-gram --fusion gram " in capsys.readouterr().out
