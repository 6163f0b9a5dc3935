from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from fusionkit.experiment.folds import fold_of

STRATA, GROUPS = np.arange(60) % 3, np.arange(60) // 4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "strata", "groups"),
    [
        (StratifiedKFold, STRATA, None),
        (KFold, None, None),
        (StratifiedGroupKFold, STRATA, GROUPS),
        (StratifiedGroupKFold, None, GROUPS),
    ],
    ids=["classes", "plain", "classes and groups", "groups"],
)
def test_folds_are_those_of_scikit_learn(kind: Any, strata: Any, groups: Any, seed: int) -> None:
    classes = np.zeros(60) if strata is None else strata
    for fold, wanted in enumerate(kind(5, shuffle=True, random_state=seed).split(classes, classes, groups)):
        found = fold_of(strata, groups, rows=60, folds=5, fold=fold, seed=seed)
        for part, expected in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(part, expected)
            assert part.dtype == np.int64


def test_groups_without_classes_make_folds_of_about_the_same_size() -> None:
    for seed in range(10):
        groups = np.repeat(np.arange(50), np.random.default_rng(seed).integers(1, 9, 50))
        parts = [fold_of(None, groups, rows=len(groups), folds=5, fold=fold, seed=seed) for fold in range(5)]
        np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in parts])), np.arange(len(groups)))
        for stay, held in parts:
            assert not set(groups[stay]) & set(groups[held])
            assert abs(len(held) - len(groups) / 5) <= 8
