"""Text that can be printed: one line of an exception, of a foreign object, of anything."""

from __future__ import annotations

from reprlib import Repr

_REPR = Repr()
_REPR.maxother = _REPR.maxstring = 100


def printable(text: str) -> str:
    """Escape what a file cannot hold (half of a surrogate pair), and what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def one_line(text: str, limit: int | None = None) -> str:
    """Return ``text`` with every run of white space as one blank, cut to ``limit`` characters if one is given."""
    line = printable(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else f"{line[:limit]}..."


def error_message(error: BaseException, limit: int | None = None) -> str:
    """Return the message of an exception in one line, or the name of its type where it has none."""
    return _message(error, limit) or type(error).__name__


def error_line(error: BaseException, limit: int | None = 400) -> str:
    """Return an exception in one line: ``ImportError: No module named 'x'``."""
    message, name = _message(error, limit), type(error).__name__
    return f"{name}: {message}" if message else name


def _message(error: BaseException, limit: int | None) -> str:
    try:
        return one_line(str(error), limit)
    except Exception:  # The ``__str__`` of a foreign exception.
        return ""


def short_repr(value: object) -> str:
    """Return a ``repr`` of at most about 100 characters; of an object whose ``repr`` fails, its type and address."""
    return printable(_REPR.repr(value))
