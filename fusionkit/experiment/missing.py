"""Which views of a row are present, by their NaN or by a mask: the same for arrays of numpy and tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionkit.errors import FusionError

_ADVICE = "A run with data.impute=mean fills them with the means of its training part."


def presence(
    names: Sequence[str],
    views: Sequence[npt.NDArray[Any]],
    mask: npt.NDArray[Any] | None = None,
    impute: str | None = None,
    what: str = "mask",
    first: int = 0,
) -> npt.NDArray[np.bool_] | None:
    """Return which views of each row are present, (m, k); None if all are.

    Args:
        names: of the views, for messages.
        views: k arrays (m, n_i).
        mask: (m, k), True where a view is present; None: where it is not all NaN.
        impute: as for ``present_rows``.
        what: the mask, for messages.
        first: the number of the first row, for messages.

    Raises:
        FusionError: the mask does not fit, or as ``present_rows``.
    """
    if mask is not None:
        check_mask(what, mask, (len(views[0]), len(views)))
    columns = [
        present_rows(name, view, None if mask is None else mask[:, i], impute=impute, first=first)
        for i, (name, view) in enumerate(zip(names, views, strict=True))
    ]
    present = np.stack(columns, axis=1)
    return None if present.all() else present


def check_mask(what: str, mask: Any, shape: Sequence[int]) -> None:
    """Refuse a mask that is not of bool, or not of this shape: leading dimensions and the number of views.

    Raises:
        FusionError: says what was found.
    """
    dtype = str(mask.dtype).removeprefix("torch.")
    if dtype != "bool":
        raise FusionError(f"{what} should be of bool, True where a view is present; found {dtype}.")
    if tuple(mask.shape) != tuple(shape):
        should = f"have the shape {tuple(shape)}, a column per view"
        raise FusionError(f"{what} should {should}; found {tuple(mask.shape)}.")


def present_rows(what: str, view: Any, given: Any = None, *, impute: str | None = None, first: int = 0) -> Any:
    """Return which rows of a view (..., n_i) are present, (...,): ``given``, or else those that are not all NaN.

    Args:
        what: the view, for messages.
        view: an array or a tensor; rows that ``given`` calls absent may hold anything.
        given: bool (...,), or None.
        impute: not None: present rows may have some NaN, which the scaler fills.
        first: the number of the first row, for messages.

    Raises:
        FusionError: a present row has NaN, or an infinite value.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if given is None and math.isfinite(
            float(view.sum())
        ):  # As it is nearly always; the rest takes five times as long.
            return view[..., 0] == view[..., 0]
    nan = view != view  # True for NaN alone, in arrays and in tensors.
    present = ~nan.all(-1) if given is None else given
    wrong = present & (nan.any(-1) if impute is None else nan.all(-1))
    if count := int(wrong.sum()):
        found = f"{count} with NaN, the first is row {first + wrong.reshape(-1).tolist().index(True)}"
        if given is not None:
            raise FusionError(f"{what} should have no NaN in the rows that the mask calls present; found {found}.")
        should = "have no NaN in a row, or nothing but NaN where the view is absent"
        raise FusionError(f"{what} should {should}; found {found}.  {_ADVICE}")
    infinite = ((view == math.inf) | (view == -math.inf)) & present[..., None]
    if count := int(infinite.sum()):
        row = first + infinite.any(-1).reshape(-1).tolist().index(True)
        raise FusionError(f"{what} should be finite; found {count} infinite, the first in row {row}.")
    return present
