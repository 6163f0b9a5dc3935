from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypeVar, Union

import pytest

from fusionkit.config.sentences import mistakes
from fusionkit.config.types import options_of

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


class Base:
    def __init__(self, n: int | None = None) -> None: ...


class Operator(Base):
    def __init__(self, n: int | None = None, *, rank: int = 3, other: Any = None) -> None: ...


class Unknowable(Base):
    def __init__(self, n: int | None = None, amount: Decimal | None = None) -> None: ...


class Required:
    def __init__(self, size: int, copy: bool = False, name: str = "") -> None: ...


class Anything:
    def __init__(self, rank: int = 3, **options: Any) -> None: ...


@pytest.mark.parametrize(
    ("cls", "options", "wrong"),
    [
        (Operator, {"n": None, "rank": 4, "other": [object]}, []),
        (Operator, {"n": "x", "rank": None}, ["n", "rank"]),
        (Operator, {"rnak": 4}, ["rnak"]),
        (Operator, {"name": "x"}, ["name"]),
        (Unknowable, {"amount": "what cannot be evaluated is not checked", "n": 3}, []),
        (Required, {"size": 1, "copy": True}, []),
        (Required, {"copy": 1}, ["size", "copy"]),
        (Anything, {"whatever": 1}, []),
        (Anything, {"whatever": 1, "rank": "x"}, ["rank"]),
    ],
)
def test_options_are_checked_against_a_constructor(cls: type, options: dict[str, Any], wrong: list[str]) -> None:
    assert sorted(mistakes(options_of(cls), options)) == sorted(wrong)


def mismatch(value: Any, annotation: Any) -> str | None:
    """Return what ``value`` should be as an option with this annotation, None if it fits."""

    class Holder:
        def __init__(self, option: Any = 0) -> None: ...

    Holder.__init__.__annotations__["option"] = annotation
    found = mistakes(options_of(Holder), {"option": value}).get("option")
    return found and found.removeprefix("option should be ").partition("; found ")[0]


FITS: list[tuple[Any, Any]] = [
    (3, int),
    (3, float),
    (3.5, float),
    (True, bool),
    ("a", str),
    (None, None),
    (None, Optional[int]),  # noqa: UP045
    (3, Union[int, str]),  # noqa: UP007
    ("a", int | str),
    ("a", Literal["a", "b"]),
    ([1, 2], list[int]),
    ([1, 2], Sequence[int]),
    ([], Sequence[int]),
    ([1, "a"], tuple[int, str]),
    ([1, 2, 3], tuple[int, ...]),
    ({"a": 1}, Mapping[str, int]),
    ([[1]], list[list[int]]),
    (3, Any),
    (3, T),
    (3, Annotated[int, "x"]),
    ("relu", Callable[[int], int]),
    ({"name": "dense"}, Base),
]


@pytest.mark.parametrize(("value", "annotation"), FITS)
def test_what_fits(value: Any, annotation: Any) -> None:
    assert mismatch(value, annotation) is None


@pytest.mark.parametrize(
    ("value", "annotation", "wanted"),
    [
        (True, int, "an integer"),
        (3.0, int, "an integer"),
        ("3", int | None, "an integer or null"),
        (True, float, "a number"),
        (None, float, "a number"),
        (1, bool, "true or false"),
        (1, str, "a text"),
        ("c", Literal["a", "b"], "one of a, b"),
        (1, Literal["1"], "'1'"),
        ("ab", Sequence[str], "a list of which every item is a text"),
        ([1.5], Sequence[int], "a list of which every item is an integer"),
        (3, list, "a list"),
        ([1], tuple[int, int], "a list of which every item is an integer"),
        ([1], Mapping[str, int], "a mapping"),
        (3, Base, "a name or a mapping for Base"),
    ],
)
def test_what_does_not(value: Any, annotation: Any, wanted: str) -> None:
    assert mismatch(value, annotation) == wanted
