"""The folds of scikit-learn, which takes longer to import than a short run: imported only where folds are asked for."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from fusionkit.experiment.source import Rows


def fold_of(
    strata: Rows | None, groups: Rows | None, *, rows: int, folds: int, fold: int, seed: int
) -> tuple[Rows, Rows]:
    """Return the rows outside and inside fold ``fold`` of ``folds``, both in ascending order.

    Without strata all rows count as one class where there are groups: scikit-learn's GroupKFold takes no seed before
    1.6, and with one its folds have equal numbers of groups, not of rows.
    """
    kinds = {(True, False): StratifiedKFold, (False, False): KFold}
    kind = kinds.get((strata is not None, groups is not None), StratifiedGroupKFold)
    classes = np.zeros(rows, dtype=np.int64) if strata is None else strata
    with warnings.catch_warnings():
        # Of groups: a class may have fewer rows than there are folds.
        warnings.filterwarnings("ignore", "The least populated class in y has only", UserWarning)
        parts = list(kind(folds, shuffle=True, random_state=seed).split(classes, classes, groups))[fold]
    outside, inside = (np.asarray(part, dtype=np.int64) for part in parts)
    return outside, inside
