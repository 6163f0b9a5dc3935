"""Checks of single option values: widths, numbers, dtypes, devices."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from fusionkit.errors import DimsError, FusionError, nearest

#: The dtypes of views and parameters; torch has others, such as float8, for which it lacks most operations.
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
DTYPE_NAMES = [str(dtype).removeprefix("torch.") for dtype in DTYPES]


def check_size(what: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int, or raise a ``DimsError`` that names ``what``."""
    if not isinstance(value, bool | Tensor):
        with suppress(TypeError):
            size = operator.index(value)
            if size >= minimum:
                return size
    raise DimsError(f"{what} should be an integer of at least {minimum}; found {value!r}.")


def check_number(what: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ``FusionError`` that names ``what``."""
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        with suppress(OverflowError):  # An integer may be too large for a float.
            if isfinite(value):
                return float(value)
    raise FusionError(f"{what} should be a finite number; found {value!r}.")


def check_positive(what: str, value: Any) -> float:
    """Return a finite number above 0 as a float, or raise a ``FusionError`` that names ``what``."""
    number = check_number(what, value)
    if number <= 0:
        raise FusionError(f"{what} should be above 0; found {value!r}.")
    return number


def check_choice(what: str, value: Any, choices: Sequence[str]) -> str:
    """Return ``value``, one of the choices, or raise a ``FusionError`` that names ``what``."""
    if isinstance(value, str) and value in choices:
        return value
    hint = nearest(value, choices) if isinstance(value, str) else ""
    raise FusionError(f"{what} should be one of {', '.join(choices)}; found {value!r}.{hint}")


def check_flag(what: str, value: Any) -> bool:
    """Return a bool, or raise a ``FusionError`` that names ``what``: a string such as "false" would count as true."""
    if isinstance(value, bool):
        return value
    raise FusionError(f"{what} should be True or False; found {value!r}.")


def check_dims(dims: Any) -> tuple[int, ...]:
    """Return ``dims`` as a tuple of positive ints, or raise a ``DimsError`` that names the wrong view."""
    if isinstance(dims, str | bytes | Mapping | Set | Tensor) or not isinstance(dims, Iterable):
        raise DimsError(f"dims should be a sequence of widths, one per view; found {dims!r}.")
    widths = tuple(check_size(f"dims[{i}], the width of view {i},", width) for i, width in enumerate(dims))
    if not widths:
        raise DimsError("dims should contain the width of at least one view; found none.")
    return widths


def check_dtype(dtype: Any) -> torch.dtype | None:
    """Return one of ``DTYPES`` (also from its name, "float32"), or raise a ``FusionError``."""
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype is None or found in DTYPES:
        return found
    hint = nearest(dtype, DTYPE_NAMES) if isinstance(dtype, str) else ""
    raise FusionError(f"dtype should be one of {', '.join(DTYPE_NAMES)}; found {dtype!r}.{hint}")


def check_device(device: Any) -> torch.device | None:
    """Return a ``torch.device`` that exists on this machine, or raise a ``FusionError``; None is returned as it is."""
    if device is None:
        return None
    try:
        found = torch.device(device)
        if found.type == "meta" or (found.type == "cpu" and not found.index):
            return found
        module = torch.get_device_module(found.type)
        if module.is_available() and (found.index or 0) < module.device_count():
            return found
    except (RuntimeError, TypeError, AttributeError):
        pass
    existing = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    raise FusionError(f"device should be one of this machine: {', '.join(existing)}; found {device!r}.")
