"""Which parameters of a test run by default, and which with ``--exhaustive`` only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def exhaustive(values: Iterable[Any]) -> list[Any]:
    """Return `values`, of which a tuple is a set of arguments, as parameters that are exhaustive."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.exhaustive)
        for value in values
    ]


def exhaustive_unless(default: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """Return `values` as parameters, exhaustive but for those of which `default` is true."""
    return [parameter for value in values for parameter in ([value] if default(value) else exhaustive([value]))]
