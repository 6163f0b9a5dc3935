"""Checks the arrays or columns that say something about the rows: groups, parts, folds, ids and weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionkit._util.text import short_repr
from fusionkit.errors import FusionError
from fusionkit.experiment.source import Array, decoded


def check_role(role: str, values: Array, rows: int, what: str) -> Array:
    """Return the values of a role, (rows,): weights as float64, others as text, bools or integers.

    Args:
        role: id, group, split, folds or weight.
        values: of any type.
        rows: how many rows the data have.
        what: the array or the column, for messages.

    Raises:
        FusionError: says what is wrong, in which row.
    """
    if values.shape != (rows,):
        raise FusionError(f"{what} should have the shape ({rows},), a value per row; found {values.shape}.")
    return _weights(values, what) if role == "weight" else _names(values, what)


def _weights(values: Array, what: str) -> Array:
    if values.dtype.kind not in "fiub":
        raise FusionError(f"{what} should contain real numbers; found {short_repr(values[0].item())} in row 0.")
    with np.errstate(over="ignore"):  # A long double may become infinite, which is refused.
        weights = values.astype(np.float64)
        finite = np.isfinite(weights.astype(np.float32))  # The type of the losses that they multiply.
    _refuse(~(finite & (weights >= 0)), weights, f"{what} should contain numbers of at least 0, finite in float32")
    if not weights.any():
        raise FusionError(f"{what} should have a weight above zero; found zero in all {len(values)} rows.")
    return weights


def _names(values: Array, what: str) -> Array:
    """Return text, bools or integers: what can be compared exactly."""
    should = f"{what} should contain text or whole numbers"
    values = decoded(what, values)
    if values.dtype.kind == "U":
        _refuse(np.char.str_len(np.char.strip(values)) == 0, values, should)
    elif values.dtype.kind == "f":
        # float64 has every whole number up to 2^53; from there on different ones may look equal.
        _refuse(~((values == np.floor(values)) & (np.abs(values) <= 2**53)), values, should)
        values = values.astype(np.int64)
    elif values.dtype.kind not in "iub":
        raise FusionError(f"{should}; found dtype {values.dtype}.")
    return values


def _refuse(wrong: npt.NDArray[np.bool_], values: Array, should: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise FusionError(f"{should}; found {values[row].item()!r} in row {row}.")
