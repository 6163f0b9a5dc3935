"""Follows a page of docs/ as its reader does: block after block, in an empty directory.

A block of `python` is run, or written to a file if its first line is the name of one (`# name.py`).  A block of
`console` has commands behind `$ `.  What they print stands in the block of `text` that follows, or below the command:
word by word, but for the number of spaces, and for decimals, which depend on the machine and may differ by `NEAR`.
`...` stands for any text, and in a line of its own for any lines.

`python -m tests.pages PAGE` writes what the Python blocks of a page print into it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NEAR = 0.05
_DECIMAL = re.compile(r"\d+\.\d+")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ([\w/-]+\.\w+)\n")


class Block(NamedTuple):
    """A block of code: its language, empty if none is named, and its text."""

    language: str
    text: str


def read(name: str) -> str:
    """Return the text of a page, by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, given as text."""
    return [Block(*found) for found in _FENCE.findall(page)]


def python_blocks(page: str) -> list[str]:
    """Return the blocks of Python."""
    return [text for language, text in blocks(page) if language == "python"]


def commands(page: str) -> list[str]:
    """Return the lines of a page that are a command of fusionkit, without a comment behind it."""
    lines = "\n".join(text for language, text in blocks(page) if language in ("", "console"))
    return re.findall(r"^(?:\$ |.* && )?(fusionkit (?:\\\n|.)*?)(?:\s+#.*)?$", lines, re.MULTILINE)


def follow(page: str, run: Callable[[str], str]) -> None:
    """Follow a page in the current directory; `run` runs a command and returns what it prints."""
    scope: dict[str, Any] = {"__name__": "page"}
    found = blocks(page)
    for (language, text), (after, shown) in zip(found, [*found[1:], Block("", "")], strict=True):
        if language == "python":
            printed = execute(text, scope)
            compare(shown if after == "text" else "", printed, text)
        elif language == "console":
            for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, expected = step.replace("\\\n", "").partition("\n")
                compare(expected or "...", run(command), command)


def execute(code: str, scope: dict[str, Any]) -> str:
    """Run a block of Python, or write the file that it shows; return what it prints."""
    if named := _FILE.match(code):
        Path(named[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(named[1]).write_text(code, encoding="utf-8")
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "page", "exec"), scope)
    return out.getvalue()


def compare(expected: str, found: str, what: str) -> None:
    """Raise an AssertionError unless `found` is what the page shows."""
    lines = [" ".join(line.split()) for line in expected.splitlines()]
    pattern = "".join("(?:.*\n)*?" if line == "..." else f"{_pattern(line)}\n" for line in lines)
    text = "".join(f"{' '.join(line.split())}\n" for line in found.splitlines())
    match = re.fullmatch(pattern, text)
    assert match is not None, f"{what}\nThe page shows\n{expected}\nfound\n{found}"
    pairs = zip(_DECIMAL.findall(expected), match.groups(), strict=True)
    far = [pair for pair in pairs if abs(float(pair[0]) - float(pair[1])) > NEAR]
    assert not far, f"{what}\n{far} differ by more than {NEAR}\n{found}"


def _pattern(line: str) -> str:
    """Return a line as a regular expression with a group for each of its decimals."""
    parts = [".*".join(map(re.escape, part.split("..."))) for part in _DECIMAL.split(line)]
    return f"({_DECIMAL.pattern})".join(parts)


def updated(page: str) -> str:
    """Return a page with what its Python blocks print here."""
    scope: dict[str, Any] = {"__name__": "page"}
    pieces: list[str] = []
    end, printed = 0, ""
    for match in _FENCE.finditer(page):
        if match[1] == "text" and printed:
            pieces += [page[end : match.start(2)], printed]
            end = match.end(2)
        printed = execute(match[2], scope) if match[1] == "python" else ""
    return "".join([*pieces, page[end:]])


if __name__ == "__main__":
    file = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = updated(file.read_text(encoding="utf-8"))
    file.write_text(made, encoding="utf-8")
