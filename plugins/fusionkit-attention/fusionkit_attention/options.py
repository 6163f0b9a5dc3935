"""Checks of the options that several operators of this package have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusionkit import FusionError
from fusionkit.errors import nearest
from fusionkit.fusion import check_number


def check_choice(option: str, value: Any, choices: Sequence[str]) -> str:
    """Return ``value``, or raise a ``FusionError`` if it is none of the choices."""
    if value not in choices:
        hint = nearest(str(value), choices)
        raise FusionError(f"{option} should be one of {', '.join(choices)}; found {value!r}.{hint}")
    return str(value)


def check_positive(option: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ``FusionError`` if it is not a finite number above 0."""
    number = check_number(option, value)
    if number <= 0:
        raise FusionError(f"{option} should be above 0; found {value!r}.")
    return number


def check_main(main: Any, dims: Sequence[int] | None) -> int:
    """Return the index of the main view, or raise a ``FusionError`` if there is no such view."""
    if isinstance(main, bool) or not isinstance(main, int) or main < 0 or (dims is not None and main >= len(dims)):
        last = "" if dims is None else f" from 0 to {len(dims) - 1}"
        raise FusionError(f"main should be the index of a view{last}; found {main!r}.")
    return main
