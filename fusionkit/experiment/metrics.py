"""The metrics of a classification, with the numbers of scikit-learn, whose import takes longer than a short run."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


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
