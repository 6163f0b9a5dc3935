"""Plain values against the annotations of a constructor."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["mismatch", "options_with_types"]


@lru_cache(maxsize=256)
def options_with_types(cls: type) -> dict[str, tuple[inspect.Parameter, Any]]:
    """Return the parameters of a constructor with their annotations; ``Any`` where those cannot be evaluated."""
    parameters = inspect.signature(cls).parameters
    hints: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        init = owner.__dict__.get("__init__")
        if init is None:
            continue
        # An annotation may use a name that only type checkers know; its options are then not checked.
        with contextlib.suppress(Exception):
            hints.update(typing.get_type_hints(init))
    return {name: (parameter, hints.get(name, Any)) for name, parameter in parameters.items()}


def mismatch(value: Any, annotation: Any) -> str | None:
    """Return what ``value`` should be, or None if it fits; annotations without a plain counterpart fit everything."""
    return None if _fits(value, annotation) else _describe(annotation)


def _fits(value: Any, annotation: Any) -> bool:
    if annotation is Any or annotation is inspect.Parameter.empty or isinstance(annotation, typing.TypeVar):
        return True
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fits(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is str:
        return isinstance(value, str)
    base = origin or annotation
    if not isinstance(base, type):
        return True
    if base in (list, tuple, set, frozenset) or (base is not str and issubclass(base, Sequence)):
        return isinstance(value, list | tuple) and _items_fit(value, base, arguments)
    if issubclass(base, Mapping):
        return isinstance(value, Mapping)
    # A class of its own (a module, a device): configs write such things as names or mappings.
    return isinstance(value, str | Mapping | list | tuple)


def _items_fit(value: Sequence[Any], base: type, arguments: tuple[Any, ...]) -> bool:
    if not arguments:
        return True
    if base is tuple and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    return all(_fits(item, arguments[0]) for item in value)


def _describe(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(one) for one in arguments))
    if origin is typing.Literal:
        return " or ".join(repr(one) for one in arguments)
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a text", type(None): "null"}
    if annotation in names:
        return names[annotation]
    base = origin or annotation
    if isinstance(base, type) and (base in (list, tuple) or issubclass(base, Sequence)):
        inner = [one for one in arguments if one is not Ellipsis]
        return f"a list of which every item is {_describe(inner[0])}" if inner else "a list"
    if isinstance(base, type) and issubclass(base, Mapping):
        return "a mapping"
    return f"a name or a mapping for {getattr(base, '__name__', base)}"
