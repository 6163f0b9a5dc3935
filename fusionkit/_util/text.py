"""Makes printable text of exceptions, objects and strings from outside."""

from __future__ import annotations

from collections.abc import Iterable
from reprlib import Repr
from typing import Any

_REPR = Repr()
_REPR.maxother = _REPR.maxstring = 100


def printable(text: str) -> str:
    """Escape unpaired surrogates, which UTF-8 cannot encode, and control characters, but line feeds and tabs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def one_line(text: str, limit: int | None = None) -> str:
    """Return ``text`` in one line, with single blanks, cut to ``limit`` characters if a limit is given."""
    line = printable(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else f"{line[:limit]}..."


def duration(seconds: float) -> str:
    """Return a time as minutes and seconds, ``3:07``, or with hours, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def count_of(number: int, noun: str) -> str:
    """Return ``1 run`` or ``2 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def error_message(error: BaseException, limit: int | None = None) -> str:
    """Return the message of an exception in one line, or the name of its type if it has no message."""
    return _message(error, limit) or type(error).__name__


def error_line(error: BaseException, limit: int | None = 400) -> str:
    """Return an exception in one line: ``ImportError: No module named 'x'``."""
    message, name = _message(error, limit), type(error).__name__
    return f"{name}: {message}" if message else name


def _message(error: BaseException, limit: int | None) -> str:
    try:
        return one_line(str(error), limit)
    except Exception:  # ``__str__`` of a plugin's exception may raise anything.
        return ""


def short_repr(value: object) -> str:
    """Return a ``repr`` of about 100 characters at most; type and address of an object whose ``repr`` fails."""
    return printable(_REPR.repr(value))


def value_text(value: Any) -> str:
    """Return the text of a value that names a class, a category or a row: 1 for 1 and 1.0, true for True."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return str(int(value))
    return str(value)


def listed(texts: Iterable[str], most: int = 10) -> str:
    """Return the first texts, at most this many, joined by commas; dots stand for the others."""
    texts = list(texts)
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")
