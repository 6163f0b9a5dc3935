"""Exceptions and objects in one line."""

from __future__ import annotations

import pytest

from fusionkit._util.text import error_line, error_message, one_line, printable, short_repr


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError

    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "line", "message"),
    [
        (ValueError("a\n  b"), "ValueError: a b", "a b"),
        (ValueError(), "ValueError", "ValueError"),
        (ValueError("\udcff\x1b[31m"), "ValueError: \\udcff\\x1b[31m", "\\udcff\\x1b[31m"),
        (Unprintable(), "Unprintable", "Unprintable"),
    ],
)
def test_error(error: Exception, line: str, message: str) -> None:
    assert (error_line(error), error_message(error)) == (line, message)


def test_error_line_is_short() -> None:
    assert len(error_line(ValueError("x" * 10_000))) < 500
    assert error_line(ValueError("abcdef"), limit=3) == "ValueError: abc..."


def test_one_line() -> None:
    assert one_line(" a\t\nb ") == "a b"


def test_printable_keeps_lines() -> None:
    assert printable("ä\n\t\x07") == "ä\n\t\\x07"


def test_short_repr() -> None:
    assert short_repr({"a": "\x1b"}) == "{'a': '\\x1b'}"
    assert short_repr(Unprintable()).startswith("<Unprintable instance at ")


def test_short_repr_is_short() -> None:
    assert len(short_repr("x" * 10_000)) < 120
