"""The mean weights of the views by group of rows."""

from __future__ import annotations

import numpy as np

from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.tasks.multilabel import Multilabel
from fusionkit.experiment.tasks.regression import Regression
from fusionkit.experiment.view_weights import mean_weights

WEIGHTS = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5], [0.75, 0.25]])


def test_the_mean_is_over_the_rows_that_have_the_view() -> None:
    mask = np.array([[True, True], [True, False], [True, True], [True, True]])
    groups = {"x": np.array([True, True, False, False]), "y": np.array([False, False, True, True])}
    assert mean_weights(WEIGHTS, mask, groups, ["a", "b"]) == {
        "x": {"a": 0.625, "b": 0.75},
        "y": {"a": 0.625, "b": 0.375},
    }
    assert mean_weights(WEIGHTS, None, groups, ["a", "b"])["x"] == {"a": 0.625, "b": 0.375}


def test_what_no_row_has_is_none() -> None:
    mask = np.array([[True, False]] * 4)
    groups = {"x": np.array([True] * 4), "y": np.array([False] * 4)}
    assert mean_weights(WEIGHTS, mask, groups, ["a", "b"]) == {
        "x": {"a": 0.625, "b": None},
        "y": {"a": None, "b": None},
    }


def test_a_weight_that_is_not_finite_has_no_mean() -> None:
    weights = np.array([[np.nan, 1.0], [0.5, np.inf]])
    assert mean_weights(weights, None, {"all": np.array([True, True])}, ["a", "b"]) == {"all": {"a": None, "b": None}}


def test_the_groups_of_every_task() -> None:
    def rows(groups: dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]) -> dict[str, list[bool]]:
        return {name: of.tolist() for name, of in groups.items()}

    assert rows(Classification([1.0, 2.5]).groups(np.array([1, 0, 1]))) == {
        "1": [False, True, False],
        "2.5": [True, False, True],
    }
    labels = np.array([[True, False], [True, True], [False, False]])
    assert rows(Multilabel(["p", "q"]).groups(labels)) == {"p": [True, True, False], "q": [False, True, False]}
    assert rows(Regression(["t"]).groups(np.zeros((3, 1)))) == {"all": [True, True, True]}
