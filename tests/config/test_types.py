from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypeVar, Union

import pytest

from fusionkit.config.types import mismatch, options_with_types

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


class Base:
    def __init__(self, n: int | None = None) -> None: ...


class Operator(Base):
    def __init__(self, n: int | None = None, *, rank: int = 3, other: Any = None) -> None: ...


class Unknowable(Base):
    def __init__(self, n: int | None = None, amount: Decimal | None = None) -> None: ...


def test_options_come_with_their_types() -> None:
    found = options_with_types(Operator)
    assert {name: annotation for name, (_, annotation) in found.items()} == {"n": int | None, "rank": int, "other": Any}
    assert found["rank"][0].default == 3


def test_a_type_that_cannot_be_evaluated_is_any() -> None:
    assert options_with_types(Unknowable)["amount"][1] is Any


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
        ("c", Literal["a", "b"], "'a' or 'b'"),
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
