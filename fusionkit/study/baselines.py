"""The baselines of a study: scikit-learn on the concatenated views, in the same folds as the fusions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from fusionkit.config.options import data_options
from fusionkit.experiment.data import Dataset, load_data
from fusionkit.experiment.robustness import Mask, Views, robustness
from fusionkit.experiment.source import Array
from fusionkit.experiment.splits import Parts, split

#: name -> function that makes an untrained classifier.  C is the best on average over the three data sets on the splits
#: of seeds 100 to 104, one value for all data, like the training options of the fusions.
BASELINES: dict[str, Callable[[], Any]] = {
    "logistic_regression": lambda: LogisticRegression(C=1.0, max_iter=2000),
    "rbf_svm": lambda: SVC(C=10.0, kernel="rbf", gamma="scale"),
}


#: The same for a regression; the ridge chooses its alpha by leave-one-out on the training part.
REGRESSORS: dict[str, Callable[[], Any]] = {
    "ridge": lambda: RidgeCV(alphas=np.logspace(-2, 4, 13)),
    "rbf_svr": lambda: TransformedTargetRegressor(
        MultiOutputRegressor(SVR(C=1.0, kernel="rbf", gamma="scale")), transformer=StandardScaler()
    ),
}


def run_baseline(name: str, node: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train and measure a baseline on the split of a config's node ``data`` and a seed.

    Returns:
        In plain JSON types: ``baseline``, ``data`` (with the digest), ``seed``, ``fold``, ``parameters`` (learned
        numbers), ``metrics``, ``robustness``, ``seconds``.
    """
    begun = time.perf_counter()
    data, parts, training, test = _standardized(node, seed)
    model = BASELINES[name]().fit(training, data.target[parts.training])
    views = dict(zip(data.views, np.split(test, np.cumsum(data.dims)[:-1], axis=1), strict=True))
    target = data.target[parts.test]
    learned = [model.coef_, model.intercept_] if hasattr(model, "coef_") else [model.dual_coef_, model.support_vectors_]

    def accuracy(given: Views, mask: Mask | None) -> float:
        """Predict with the training mean, 0, in place of what is missing."""
        if mask is not None:
            given = [np.where(mask[:, i, None], view, 0.0) for i, view in enumerate(given)]
        return float(np.mean(model.predict(np.hstack(given)) == target))

    return {
        "baseline": name,
        "data": _described(data, parts),
        "seed": seed,
        "fold": node["fold"],
        "parameters": sum(int(array.size) for array in learned),
        "metrics": {"accuracy": float(np.mean(model.predict(test) == target))},
        "robustness": robustness(accuracy, views, seed=seed),
        "seconds": round(time.perf_counter() - begun, 3),
    }


def run_reference(name: str, node: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train a baseline, or a regressor, and measure it on the complete test part alone.

    Returns:
        In plain JSON types: ``baseline``, ``data``, ``seed``, ``fold``, ``metrics``: accuracy or r2, ``seconds``.
    """
    begun = time.perf_counter()
    data, parts, training, test = _standardized(node, seed)
    target = data.target
    if name in BASELINES:
        predicted = BASELINES[name]().fit(training, target[parts.training]).predict(test)
        metrics: dict[str, float | None] = {"accuracy": float(np.mean(predicted == target[parts.test]))}
    else:
        predicted = REGRESSORS[name]().fit(training, target[parts.training]).predict(test)
        task = data.task.fitted(target[parts.training])
        metrics = {"r2": task.functions["r2"](predicted.reshape(len(test), -1), target[parts.test])}
    found = {"baseline": name, "data": _described(data, parts), "seed": seed, "fold": node["fold"], "metrics": metrics}
    return {**found, "seconds": round(time.perf_counter() - begun, 3)}


def _standardized(node: Mapping[str, Any], seed: int) -> tuple[Dataset, Parts, Array, Array]:
    """Return data, parts, and the concatenated views (m, D) of the training and of the test part."""
    data = load_data(node, task="auto")
    parts = split(data, data_options(node), seed)
    whole = np.hstack([view.astype("float64") for view in data.views.values()])
    scaler = StandardScaler().fit(whole[parts.training])
    return data, parts, scaler.transform(whole[parts.training]), scaler.transform(whole[parts.test])


def _described(data: Dataset, parts: Parts) -> dict[str, Any]:
    return {**data.describe(), "training_rows": len(parts.training), "test_rows": len(parts.test)}
