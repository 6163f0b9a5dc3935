from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fusionkit.experiment.data import load_data
from fusionkit.study.baselines import BASELINES, run_baseline


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_scikit_learns_on_the_concatenation_in_the_fold(name: str) -> None:
    data = load_data({"name": "breast_cancer"})
    x = np.hstack(list(data.views.values()))
    train, test = list(StratifiedKFold(4, shuffle=True, random_state=2).split(x, data.target))[3]
    model = make_pipeline(StandardScaler(), BASELINES[name]()).fit(x[train], data.target[train])
    found = run_baseline(name, {"name": "breast_cancer", "test_size": 0.25, "fold": 3}, 2)
    assert found["metrics"]["accuracy"] == model.score(x[test], data.target[test])
    assert (found["data"]["test_rows"], found["data"]["digest"]) == (len(test), data.digest)
    # A missing view stands at the mean of the training part.
    x[:, :10] = x[train, :10].mean(0)
    assert found["robustness"]["missing"]["mean"] == pytest.approx(model.score(x[test], data.target[test]))


def test_parameters_are_what_was_learnt() -> None:
    found = run_baseline("logistic_regression", {"name": "breast_cancer", "test_size": 0.2, "fold": 0}, 0)
    assert found["parameters"] == 31
