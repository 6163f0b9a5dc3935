"""Pydantic types for the options of a constructor as a config gives them: numbers, texts, lists and mappings."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

from pydantic import ConfigDict, Field, InstanceOf, TypeAdapter, WithJsonSchema, create_model

#: Pydantic's own ``str`` refuses what the name of a file may hold beside Unicode (half of a surrogate pair).
Text = InstanceOf[str]
_SCALARS = {kind: kind for kind in (bool, int, float, type(None), Any)} | {None: type(None), str: Text}


@lru_cache(maxsize=256)
def options_of(cls: type) -> TypeAdapter[Any]:
    """Return what checks the options of a constructor but its ``name``; those it has no default for are required."""
    hints: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        # An annotation may use a name that only type checkers know; its options are then not checked.
        with contextlib.suppress(NameError, TypeError, AttributeError, SyntaxError):
            hints.update(typing.get_type_hints(owner.__dict__.get("__init__"), include_extras=True))
    fields: dict[str, Any] = {}
    extra: typing.Literal["allow", "forbid"] = "forbid"
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
        if name == "name" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        found = plain(hints.get(name, Any))
        # A config writes null for a default of None, even if the annotation does not allow None.
        found = found | None if parameter.default is None else found
        default = ... if parameter.default is parameter.empty else None
        fields[f"option_{len(fields)}"] = (found, Field(default, alias=name))
    return TypeAdapter(create_model("Options", __config__=ConfigDict(strict=True, extra=extra), **fields))


def plain(annotation: Any) -> Any:
    """Return what a config writes for ``annotation``: for a class a name or a mapping, for a sequence a list."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return annotation
    with contextlib.suppress(KeyError, TypeError):  # Not every annotation can be hashed.
        return _SCALARS[annotation]
    if origin is Annotated:
        return plain(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(plain, arguments))]  # noqa: UP007
    base = origin or annotation
    if not isinstance(base, type):
        return Any
    if base in (list, tuple, set, frozenset) or issubclass(base, Sequence):
        return _sequence(base, [one if one is Ellipsis else plain(one) for one in arguments])
    if issubclass(base, Mapping):
        return dict[Any, Any]
    words = f"a name or a mapping for {base.__name__}"
    return Annotated[Text | dict[Any, Any] | list[Any], WithJsonSchema({"expected": words})]


def _sequence(base: type, arguments: list[Any]) -> Any:
    """Return the type of a list or tuple of plain items, whichever of the two a config holds."""
    fixed = base is tuple and arguments and arguments[-1] is not Ellipsis
    generic: Any = tuple
    made = generic[tuple(arguments) if fixed else (arguments[0] if arguments else Any, ...)]
    return Annotated[made, Field(strict=False)]
