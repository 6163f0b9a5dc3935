"""How much each view counts in a trained fusion, by class: the means of the weights that its ``explain`` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fusionkit.experiment.source import Array

#: By class or label, or ``all`` for a regression, then by view: the mean weight; None where no row has the view.
Weights = dict[str, dict[str, float | None]]


def mean_weights(
    weights: Array, mask: npt.NDArray[np.bool_] | None, groups: Mapping[str, Array], views: Sequence[str]
) -> Weights:
    """Return the mean weight of every view in every group of rows, over the rows that have the view.

    Args:
        weights: (m, k).
        mask: (m, k), True where a view of a row is present; None: all are.
        groups: bool (m,), which rows.
        views: their names.
    """
    present = np.ones(weights.shape, dtype=bool) if mask is None else mask
    return {
        name: {view: _mean(weights[rows & present[:, i], i]) for i, view in enumerate(views)}
        for name, rows in groups.items()
    }


def _mean(values: Array) -> float | None:
    """Return the mean; None for no values, or where one is not finite."""
    mean = float(values.mean(dtype=np.float64)) if len(values) else np.nan
    return mean if np.isfinite(mean) else None
