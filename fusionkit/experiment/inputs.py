"""What scikit-learn's own checks of ``X`` let pass: masked entries, dates, texts, and lists of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from fusionkit.errors import FusionError, nearest
from fusionkit.experiment.source import check_orders, check_unmasked, misplaced

#: The types of views.  PyTorch computes in them as they are.
REAL = [np.float64, np.float32]

#: What scikit-learn converts to numbers, although it is none.
_OTHERS = {str: "texts", bytes: "texts", np.datetime64: "dates", np.timedelta64: "durations"}

Names = npt.NDArray[np.object_] | None


def check_values(what: str, X: Any) -> None:
    """Refuse values that scikit-learn would convert to numbers that mean something else.

    Raises:
        FusionError: masked entries, dates or texts.
    """
    check_unmasked(what, X)
    values = np.asarray(X)
    kinds = {values.dtype.type} if values.dtype.kind != "O" else set(map(type, values.flat))
    for base, found in _OTHERS.items():
        if any(issubclass(kind, base) for kind in kinds):
            raise FusionError(f"{what} should contain numbers; found {found}.")


def check_views(views: Sequence[Any], fitted: Sequence[Names] | None) -> tuple[list[npt.NDArray[Any]], list[Names]]:
    """Return a list of views as arrays, and the names of their columns; each is checked as one matrix would be.

    NaN and infinite values pass: whether they are absent is checked later.

    Args:
        views: k arrays or data frames (m, n_i).
        fitted: the names that the columns should have; None when fitting.

    Raises:
        ValueError: values that are no numbers, other names, or rows that do not belong together.
    """
    _check_rows(views)
    arrays, names = [], []
    for i, view in enumerate(views):
        check_values(f"View {i} of X", view)
        checker = View()
        if fitted is not None and fitted[i] is not None:
            checker.feature_names_in_ = fitted[i]
        try:
            options = {"reset": fitted is None, "dtype": REAL, "order": "C", "ensure_all_finite": False}
            arrays.append(validate_data(checker, view, **options))
        except (TypeError, ValueError) as error:
            raise FusionError(f"View {i} of X: {error}") from error
        names.append(getattr(checker, "feature_names_in_", None))
    return arrays, names


def view_columns(views: Mapping[str, Any], names: Names, count: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return the numbers of the columns of each view.

    Args:
        views: name -> a slice, or a list of names or integers.
        names: of the ``count`` columns of X; None: they have none.
        count: how many there are.

    Raises:
        FusionError: there is no such column, or one is in no view or in two.
    """
    if not views:
        raise FusionError("views should contain a view; found an empty mapping.")
    found = {str(view): _columns(f"views[{view!r}]", given, names, count) for view, given in views.items()}
    if (wrong := misplaced(found, range(count))) is not None:
        what = wrong[0] if names is None else repr(names[wrong[0]])
        raise FusionError(f"Column {what} of X should be in one view, by views; found {wrong[1]}.")
    return {view: np.array(columns, dtype=np.int64) for view, columns in found.items()}


def _columns(key: str, given: Any, names: Names, count: int) -> list[int]:
    """Return the numbers of the columns that one view names."""
    if isinstance(given, slice):
        ends = [end for end in (given.start, given.stop) if end is not None]
        if not all(isinstance(end, int | np.integer) and abs(int(end)) <= count for end in ends):
            raise FusionError(f"{key} should be a slice of the {count} columns of X; found {given!r}.")
        columns = [*range(count)[given]]
    else:
        columns = [_column(key, one, names, count) for one in ([given] if isinstance(given, str) else given)]
    if not columns:
        raise FusionError(f"{key} should have a column; found {given!r}.")
    return columns


def _column(key: str, one: Any, names: Names, count: int) -> int:
    known = [] if names is None else names.tolist()
    if isinstance(one, str):
        if one not in known:
            named = "name columns of X" if known else "contain integers, as the columns of X have no names"
            raise FusionError(f"{key} should {named}; found {one!r}.{nearest(one, known)}")
        return known.index(one)
    if not isinstance(one, int | np.integer) or not -count <= one < count:
        should = f"contain names of columns, or integers below {count}, the number of columns of X"
        raise FusionError(f"{key} should {should}; found {one!r}.")
    return int(one) % count


def reordered(X: Any, names: npt.NDArray[np.object_]) -> Any:
    """Return a data frame with its columns in the order of ``names``; as it is if it has others, or is no data frame.

    scikit-learn refuses others by their names.
    """
    columns = [*getattr(X, "columns", ())]
    return X[names.tolist()] if len(columns) == len(names) and {*columns} == {*names} else X


class View(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Stands for one view where scikit-learn checks its names; its own name is in the messages."""


def _check_rows(views: Sequence[Any]) -> None:
    rows = [view.shape[0] for view in views]
    if len({*rows}) > 1:
        raise FusionError(f"The views should have the same number of rows; found {rows}.")
    # Not the index of y: scikit-learn's permutation tests shuffle y together with its index.
    check_orders((f"View {i} of X", view) for i, view in enumerate(views))
