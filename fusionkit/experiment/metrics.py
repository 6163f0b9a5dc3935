"""The metrics of a classification, with the numbers of scikit-learn, whose import takes longer than a short run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

#: The metrics of which less is better; of several targets each has such a metric with the name of the target behind it.
_LESS_IS_BETTER = ("rmse", "mae", "log_loss", "calibration_error")


def rank_value(metric: str, value: float) -> float:
    """Return the value of a metric so that more is better: rmse, mae, log_loss and calibration_error with a minus."""
    return -value if metric.startswith(_LESS_IS_BETTER) else value


def ranked(result: Mapping[str, Any], part: str = "metrics") -> float | None:
    """Return the value that ranks a run, more is better; None where its metric is undefined or was not measured.

    Args:
        result: the record of the run.
        part: ``metrics``, of the test part, or ``validation``.
    """
    value = (result.get(part) or {}).get(result.get("metric", "accuracy"))
    return None if value is None else rank_value(result.get("metric", "accuracy"), value)


def confusion_matrix(
    target: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Count rows by true class and predicted class, (classes, classes)."""
    return np.bincount(classes * target + predicted, minlength=classes**2).reshape(classes, classes)


def metrics(confusion: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return accuracy, the mean F1 score of the classes, and the mean of ``-log`` of the probability of the true class.

    Args:
        confusion: (classes, classes), by true class and predicted class.
        probabilities: (m,) of the true class of each row.
    """
    right, sizes = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    eps = np.finfo(np.float64).eps
    # By the C library's logarithm: numpy's own may differ in the last bit.
    losses = [-math.log(p) for p in probabilities.clip(eps, 1 - eps).tolist()]
    return {
        "accuracy": float(right.sum() / confusion.sum()),
        "f1_macro": float(np.mean(2.0 * right / np.maximum(sizes, 1))),
        "log_loss": float(np.mean(losses)),
    }
