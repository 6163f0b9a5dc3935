"""The baselines of a study: classifiers of scikit-learn on the concatenated views, in the same folds as the fusions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from fusionkit.config.options import data_options
from fusionkit.experiment.data import load_data
from fusionkit.experiment.robustness import Mask, Views, robustness
from fusionkit.experiment.splits import split

#: name -> function that makes an untrained classifier.  C is the best on average over the three data sets on the splits
#: of seeds 100 to 104, one value for all data, like the training options of the fusions.
BASELINES: dict[str, Callable[[], Any]] = {
    "logistic_regression": lambda: LogisticRegression(C=1.0, max_iter=2000),
    "rbf_svm": lambda: SVC(C=10.0, kernel="rbf", gamma="scale"),
}


def run_baseline(name: str, node: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train and measure a baseline on the split of a config's node ``data`` and a seed.

    Returns:
        In plain JSON types: ``baseline``, ``data`` (with the digest), ``seed``, ``fold``, ``parameters`` (learned
        numbers), ``metrics``, ``robustness``, ``seconds``.
    """
    begun = time.perf_counter()
    data = load_data(node)
    parts = split(data, data_options(node), seed)
    rows, test_rows = parts.training, parts.test
    whole = np.hstack([view.astype("float64") for view in data.views.values()])
    scaler = StandardScaler().fit(whole[rows])
    model = BASELINES[name]().fit(scaler.transform(whole[rows]), data.target[rows])
    test = scaler.transform(whole[test_rows])
    views = dict(zip(data.views, np.split(test, np.cumsum(data.dims)[:-1], axis=1), strict=True))
    target = data.target[test_rows]
    learned = [model.coef_, model.intercept_] if hasattr(model, "coef_") else [model.dual_coef_, model.support_vectors_]

    def accuracy(given: Views, mask: Mask | None) -> float:
        """Predict with the training mean, 0, in place of what is missing."""
        if mask is not None:
            given = [np.where(mask[:, i, None], view, 0.0) for i, view in enumerate(given)]
        return float(np.mean(model.predict(np.hstack(given)) == target))

    return {
        "baseline": name,
        "data": {**data.describe(), "training_rows": len(rows), "test_rows": len(test_rows)},
        "seed": seed,
        "fold": node["fold"],
        "parameters": sum(int(array.size) for array in learned),
        "metrics": {"accuracy": float(np.mean(model.predict(test) == target))},
        "robustness": robustness(accuracy, views, seed=seed),
        "seconds": round(time.perf_counter() - begun, 3),
    }
