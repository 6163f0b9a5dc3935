"""The exceptions of fusionkit.

All messages have one form: "X should be ...; found ...", where X names the view or the option.
All exceptions can be rebuilt from their ``args``, hence pickled and sent to another process.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["ConfigError", "DimsError", "FusionError", "OptionError", "RegistryError", "Terminated", "close", "nearest"]

#: A name of at most this length may stand for an option of one letter, its initial: ``rank`` for ``r``.
_SHORT = 6


class FusionError(ValueError):
    """An input that an operator cannot accept: views, ``w``, dtype, device or an option."""


class DimsError(FusionError, AssertionError):
    """Widths that do not fit: of the views, of the output, or of a matrix.

    Also an ``AssertionError``, because the reference library documents that type for the same mistakes.
    """


class RegistryError(LookupError):
    """A name that the registry does not have, or that two plugins have; or a plugin that failed."""


class ConfigError(ValueError):
    """A configuration that cannot be composed, written, or safely instantiated."""


class OptionError(ConfigError, TypeError):
    """An option that a constructor does not have.  Also a ``TypeError``, as Python itself raises in this case."""


class Terminated(KeyboardInterrupt):
    """Raised on a termination signal, so that a run can still be recorded.  Its argument is the signal number."""


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Return " Did you mean ...?" with the known names most similar to ``name``; empty if there are none."""
    matches = close(name, known, limit=limit)
    return f" Did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""


def close(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return the known names most similar to ``name``; for a short name without any its initial, ``r`` for ``rank``."""
    known = list(known)
    initial = [one for one in known if len(one) == 1 and one.lower() == name[:1].lower()]
    return get_close_matches(name, known, n=limit, cutoff=0.6) or (initial[:limit] if len(name) <= _SHORT else [])
