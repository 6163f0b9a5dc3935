"""Walks through trees of mappings and lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def flatten(
    tree: Any, path: tuple[str, ...] = (), *, whole: Callable[[tuple[str, ...]], bool] = lambda path: False
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield path and value of every leaf of nested mappings; lists and empty mappings are leaves.

    Args:
        tree: the mapping.
        path: path of ``tree`` itself.
        whole: whether a mapping at a path counts as a leaf.
    """
    if isinstance(tree, Mapping) and tree and not whole(path):
        for key, value in tree.items():
            yield from flatten(value, (*path, str(key)), whole=whole)
    else:
        yield path, tree


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key (``a.b[0]``) and value of every leaf of nested mappings, lists and tuples."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{key}[{index}]")
    else:
        yield key, tree


def to_python(tree: Any) -> Any:
    """Return ``tree`` with the scalars of numpy, such as a search over parameters gives, as Python's own."""
    if isinstance(tree, Mapping):
        return {name: to_python(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(to_python, tree)) if type(tree) in (list, tuple) else tree
    # By what it is called and has, because numpy's import takes time.
    if type(tree).__module__ != "numpy" or getattr(tree, "shape", None) != ():
        return tree
    value = tree.item()
    return float(value) if type(value) is type(tree) else value  # Python has no long double.


def mapped(tree: Any, leaf: Callable[[Any], Any], key: Callable[[Any], Any]) -> Any:
    """Return nested mappings and lists with each leaf and each key changed by a function."""
    if isinstance(tree, Mapping):
        return {key(name): mapped(value, leaf, key) for name, value in tree.items()}
    return [mapped(value, leaf, key) for value in tree] if isinstance(tree, list | tuple) else leaf(tree)


def to_json(tree: Any) -> Any:
    """Return ``tree`` in JSON types: NaN and infinities become None, objects of other types their ``str``."""

    def leaf(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return value if value is None or isinstance(value, bool | int | str) else str(value)

    return mapped(tree, leaf, str)
