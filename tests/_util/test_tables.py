"""Tables: plain and whole in a pipe, drawn on a terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest

from fusionkit._util.tables import print_table

LONG = "a_very_long_name_" * 12


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "count"), [("sum", 3), (LONG, None)])
    width = len(LONG)
    assert capsys.readouterr().out == f"{'name':<{width}}  count\n{'sum':<{width}}  3\n{LONG}\n"


def test_pipe_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "count"), [])
    assert capsys.readouterr().out == "name  count\n"


def test_cells_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [("two\n  lines",)])
    assert capsys.readouterr().out == "name\ntwo lines\n"


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(("name", "error"), [("summation", "[red]not markup[/red] " + "word " * 20)], whole=("name",))
    output = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert "summation" in output
    assert "[red]not markup[/red]" in output
    assert output.count("word") == 20
    assert max(map(len, output.splitlines())) <= 40


def test_control_characters_and_direction_marks_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name"], [["a\x9b31m\u202e\x1b[0m"]])
    assert capsys.readouterr().out.splitlines()[1] == r"a\x9b31m\u202e\x1b[0m"
