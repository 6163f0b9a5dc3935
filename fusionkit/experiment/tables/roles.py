"""Reads labels, and the columns with a role: ids, groups, splits, folds and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusionkit._util.text import count_of, short_repr
from fusionkit.errors import FusionError
from fusionkit.experiment.source import Labels
from fusionkit.experiment.tables.columns import Cells, Place, exact_text, floats, is_numeric, quoted, text_array

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64] | None


def read_labels(frame: pd.DataFrame, names: Sequence[str], what: str, decimal: str, tags: bool) -> Labels:
    """Return the labels: numbers, booleans or text, as the cells are.

    Args:
        frame: m rows.
        names: of the columns.
        what: names the file in messages.
        decimal: the decimal point.
        tags: whether one column has several tags, which are left as they stand.

    Raises:
        FusionError: a label is missing or infinite, or a column has numbers and words.
    """
    columns = []
    for name in names:
        place = Place(name, what)
        if tags and len(names) == 1:
            columns.append(_texts(frame[name], place, "a label"))
        else:
            columns.append(_values(frame[name], place, "a label", decimal, strict=True))
    if len(columns) == 1:
        return Labels(columns[0], list(names), str(Place(names[0], what)))
    if any(column.dtype.kind == "U" for column in columns):
        columns = [column.astype(np.str_) for column in columns]
    values = np.column_stack(columns) if columns else np.empty((len(frame), 0))
    return Labels(values, list(names), f"The label of {what}")


def read_role(role: str, series: pd.Series[Any], place: Place, decimal: str) -> Array:
    """Return the values (m,) of a column with a role.

    Raises:
        FusionError: a value is missing; an id is there twice; a weight is no finite number of at least 0.
    """
    if role == "id":
        return text_array(read_ids(series, place))
    if role == "group":
        return _texts(series, place, "a group")
    values = _values(series, place, "a value", decimal, strict=role == "weight")
    return _weights(values, place) if role == "weight" else values


def read_ids(series: pd.Series[Any], place: Place, distinct: bool = True) -> list[str]:
    """Return ids as they stand.

    Args:
        series: the column.
        place: of the column.
        distinct: whether all should differ.

    Raises:
        FusionError: one is empty, or there twice.
    """
    ids = exact_text(series)
    if not all(map(str.strip, ids)):
        _refuse_missing(np.asarray([not one.strip() for one in ids]), place, "an id")
    if distinct and len({*ids}) < len(ids):
        first = {one: row for row, one in reversed([*enumerate(ids)])}
        row = next(row for row, one in enumerate(ids) if first[one] != row)
        found = f"{short_repr(ids[row])} in row {first[ids[row]]} and again in row {row}"
        advice = f"data.group={quoted(place.column)} keeps rows that belong together on one side of a split."
        raise FusionError(f"{place} should have an id of its own in every row; found {found}.  {advice}")
    return ids


def _texts(series: pd.Series[Any], place: Place, noun: str) -> Array:
    texts = exact_text(series)
    _refuse_missing(np.asarray([not text.strip() for text in texts]), place, noun)
    return text_array(texts)


def _values(series: pd.Series[Any], place: Place, noun: str, decimal: str, strict: bool) -> Array:
    """Return numbers, booleans or text, of which none is missing."""
    if is_numeric(series):
        _refuse_missing(series.isna().to_numpy(), place, noun)
        if series.dtype.kind in "ib" or (series.dtype.kind == "u" and series.max() < 2**63):
            return np.asarray(series.to_numpy(np.bool_ if series.dtype.kind == "b" else np.int64))
        return _finite(floats(series), place)
    cells = Cells(series, place, decimal)
    _refuse_missing(cells.codes < 0, place, noun)
    kinds = {type(value) for value in cells.values}
    if kinds == {bool}:
        return np.asarray(cells.values)[cells.codes]
    if kinds == {float} or (strict and cells.kind() == "number"):
        return _finite(cells.numbers(), place)
    return text_array(cells.texts)[cells.codes]


def _refuse_missing(missing: npt.NDArray[np.bool_], place: Place, noun: str) -> None:
    if count := int(missing.sum()):
        found = f"{count_of(count, 'row')} without, the first is row {place.first(missing)}"
        raise FusionError(f"{place} should have {noun} in every row; found {found}.")


def _finite(numbers: npt.NDArray[np.float64], place: Place) -> Array:
    infinite = np.isinf(numbers)
    if count := int(infinite.sum()):
        found = f"{count} infinite, the first in row {place.first(infinite)}"
        raise FusionError(f"{place} should contain finite numbers; found {found}.")
    return numbers


def _weights(values: Array, place: Place) -> Array:
    should = f"{place} should contain numbers of at least 0, finite in float32"
    if values.dtype.kind == "U":
        words = np.ones(len(values), dtype=bool)
        raise FusionError(f"{should}; found {short_repr(values[0].item())} in row {place.first(words)}.")
    weights = values.astype(np.float64)
    with np.errstate(over="ignore"):
        wrong = (weights < 0) | ~np.isfinite(weights.astype(np.float32))  # The type of the losses.
    if wrong.any():
        raise FusionError(f"{should}; found {weights[wrong][0]:g} in row {place.first(wrong)}.")
    return weights
