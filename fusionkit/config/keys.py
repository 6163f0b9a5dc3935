"""Dotted keys of a config, and the keys that control Hydra's ``instantiate``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fusionkit.errors import ConfigError, close

#: The keys by which a node controls Hydra's ``instantiate``; any other key of the form ``_x_`` is refused.
CONTROL_KEYS = frozenset({"_target_", "_recursive_", "_convert_", "_partial_"})

#: Deeper configs are refused: they could exhaust the stack.
MAX_DEPTH = 64

#: The number of mistakes that one error lists.
_MAX_LISTED = 8


def join(key: str, name: object) -> str:
    """Return the dotted key of ``name`` below ``key``."""
    return f"{key}.{name}" if key else str(name)


def walk(tree: object, key: str = "", name: Any = "", depth: int = 0) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted key, the name and the value of ``tree`` and of everything below it; items of lists have no name.

    Raises:
        ConfigError: it is nested too deep, or contains itself.
    """
    if depth > MAX_DEPTH:
        raise ConfigError(f"{key[:80]} should be nested at most {MAX_DEPTH} levels deep; found more.")
    yield key, name, tree
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from walk(value, join(key, name), name, depth + 1)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from walk(value, f"{key}[{index}]", "", depth + 1)


def unknown_key(key: str, parent: str, names: Iterable[str]) -> str:
    """Return the sentence for a key that does not exist.

    Args:
        key: the dotted key.
        parent: the longest part of it that exists, without the dot that follows; empty if no part does.
        names: the keys below ``parent``.
    """
    names = list(names)
    wrong, dot, below = key.removeprefix(f"{parent}.").partition(".")
    if below and wrong in names:
        return f"There is no key {key!r}, because {key.removesuffix(dot + below)} is a single value."
    guesses = [join(parent, f"{guess}{dot}{below}") for guess in close(wrong, names)]
    if guesses:
        return f"There is no key {key!r}. Did you mean {' or '.join(map(repr, guesses))}?"
    known = f"  Known are {', '.join(join(parent, name) for name in names)}." if names else ""
    return f"There is no key {key!r}.{known}"


def refuse(mistakes: Iterable[str]) -> None:
    """Raise one error for all mistakes, if there is one.

    Raises:
        ConfigError: lists them, at most the first eight.
    """
    found = list(dict.fromkeys(mistakes))
    if found:
        more = f"  There are {len(found) - _MAX_LISTED} more mistakes." if len(found) > _MAX_LISTED else ""
        raise ConfigError(" ".join(found[:_MAX_LISTED]) + more)
