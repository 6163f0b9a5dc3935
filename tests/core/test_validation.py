"""Checks of single option values: what they return, and one sentence for what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from fusionkit import FusionError
from fusionkit.fusion import check_choice, check_flag, check_positive

KINDS = ("plain", "gated")


@pytest.mark.parametrize("value", [1, 2.5, 1e-300, Fraction(1, 2), np.float32(0.5)], ids=repr)
def test_positive(value: Any) -> None:
    number = check_positive("tau", value)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize("value", KINDS)
def test_choice(value: str) -> None:
    assert check_choice("kind", value, KINDS) == value


@pytest.mark.parametrize("value", [True, False])
def test_flag(value: bool) -> None:
    assert check_flag("tied", value) is value


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (check_positive, 0, "option should be above 0; found 0."),
        (check_positive, -0.5, "option should be above 0; found -0.5."),
        (check_positive, True, "option should be a finite number; found True."),
        (check_positive, "1", "option should be a finite number; found '1'."),
        (check_positive, float("inf"), "option should be a finite number; found inf."),
        (check_positive, 10**400, f"option should be a finite number; found {10**400}."),
        (check_flag, "false", "option should be True or False; found 'false'."),
        (check_flag, 1, "option should be True or False; found 1."),
        (check_flag, None, "option should be True or False; found None."),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:60]),  # The same in every process.
)
def test_refused(check: Callable[[str, Any], Any], value: Any, message: str) -> None:
    with pytest.raises(FusionError) as caught:
        check("option", value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("gatd", "'gatd'. Did you mean 'gated'?"),
        ("none of them", "'none of them'."),
        ("", "''."),
        (None, "None."),
        (["plain"], "['plain']."),
        (torch.ones(2), "tensor([1., 1.])."),
    ],
    ids=str,
)
def test_unknown_choice(value: Any, found: str) -> None:
    with pytest.raises(FusionError) as caught:
        check_choice("kind", value, KINDS)
    assert str(caught.value) == f"kind should be one of plain, gated; found {found}"
