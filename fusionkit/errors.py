"""The exceptions of fusionkit.

Every message has one form: what should be, what was found, and where (which view, which option).
All of them rebuild from ``args``, so they cross process borders by pickle.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ConfigError",
    "DimsError",
    "FusionError",
    "OptionError",
    "RegistryError",
    "Terminated",
    "close",
    "nearest",
]

#: Names of at most this length may have been meant as the letter that they begin with.
_SHORT = 6


class FusionError(ValueError):
    """An input that an operator cannot accept: wrong views, ``w``, dtype, device or option."""


class DimsError(FusionError, AssertionError):
    """Widths that do not fit: of the views, of the output, or of a matrix.

    Also an ``AssertionError``, because the reference library documents that type for the same mistakes.
    """


class RegistryError(LookupError):
    """A name that the registry does not have, may not give, or has from two places; or a plugin that failed."""


class ConfigError(ValueError):
    """A configuration that cannot be composed, written, or safely instantiated."""


class OptionError(ConfigError, TypeError):
    """An option that a constructor does not take.  Also a ``TypeError``, as Python's own complaint would be."""


class Terminated(KeyboardInterrupt):
    """The end that another program asks for by a signal, raised where something is still to be recorded.

    Its argument is the number of the signal.
    """


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Return a hint at the known names nearest to ``name``, with a leading blank, or nothing."""
    matches = close(name, known, limit=limit)
    return f" Did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""


def close(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return the known names nearest to ``name``; to a short one that none resembles its initial, ``r`` to ``rank``."""
    known = list(known)
    initial = [one for one in known if len(one) == 1 and one.lower() == name[:1].lower()]
    return get_close_matches(name, known, n=limit, cutoff=0.6) or (initial[:limit] if len(name) <= _SHORT else [])
