"""What scikit-learn's own checks of ``X`` let pass: masked entries, dates, texts, and lists of views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from fusionkit.errors import FusionError
from fusionkit.experiment.source import check_unmasked

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


class View(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Stands for one view where scikit-learn checks its names; its own name is in the messages."""


def check_order(what: str, first: Any, other: Any) -> None:
    """Refuse two data frames of the same rows in another order.

    Raises:
        FusionError: their indexes differ only in order.
    """
    if all(hasattr(frame, "columns") and hasattr(frame, "index") for frame in (first, other)):
        index, wanted = other.index, first.index
        if not index.equals(wanted) and Counter(index) == Counter(wanted):
            should = "have their rows in the same order"
            advice = "view.loc[other.index] reorders one."
            raise FusionError(f"{what} should {should}; found indexes that differ only in order.  {advice}")


def _check_rows(views: Sequence[Any]) -> None:
    rows = [view.shape[0] for view in views]
    if len({*rows}) > 1:
        raise FusionError(f"The views should have the same number of rows; found {rows}.")
    # Not the index of y: scikit-learn's permutation tests shuffle y together with its index.
    framed = [(i, view) for i, view in enumerate(views) if hasattr(view, "columns") and hasattr(view, "index")]
    for i, view in framed[1:]:
        first, other = framed[0]
        check_order(f"Views {first} and {i} of X", other, view)
