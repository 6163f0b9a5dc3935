from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fusionkit.experiment.data import load_data
from fusionkit.study.baselines import BASELINES, REGRESSORS, run_baseline, run_reference


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


@pytest.mark.parametrize("name", BASELINES)
def test_a_reference_is_the_baseline_without_disturbances(name: str) -> None:
    node = {"name": "breast_cancer", "test_size": 0.25, "fold": 3}
    whole, found = run_baseline(name, node, 2), run_reference(name, node, 2)
    assert {key: found[key] for key in found if key != "seconds"} == {
        key: whole[key] for key in ("baseline", "data", "seed", "fold", "metrics")
    }


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("data", ["diabetes", "linnerud"])
def test_a_reference_of_a_regression_has_the_mean_r2_of_the_targets(name: str, data: str) -> None:
    found = load_data({"name": data}, task="auto")
    x = np.hstack(list(found.views.values()))
    train, test = list(KFold(4, shuffle=True, random_state=2).split(x))[3]
    model = make_pipeline(StandardScaler(), REGRESSORS[name]()).fit(x[train], found.target[train])
    predicted = model.predict(x[test]).reshape(len(test), -1)
    expected = r2_score(found.target[test], predicted, multioutput="uniform_average")
    record = run_reference(name, {"name": data, "test_size": 0.25, "fold": 3}, 2)
    assert record["metrics"]["r2"] == pytest.approx(expected)
    assert (record["data"]["test_rows"], record["fold"]) == (len(test), 3)


def test_parameters_are_what_was_learnt() -> None:
    found = run_baseline("logistic_regression", {"name": "breast_cancer", "test_size": 0.2, "fold": 0}, 0)
    assert found["parameters"] == 31
