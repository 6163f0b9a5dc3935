"""The metrics of every task, with the numbers of scikit-learn.

Its import takes longer than a short training: the ranking metrics, which are its own, import it when they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fusionkit.experiment.source import Array

_BINS = 15

#: The metrics of which less is better; of several targets each has such a metric with the name of the target behind it.
_LESS_IS_BETTER = ("rmse", "mae", "log_loss", "calibration_error")
#: They have the unit of a target, so they may be of any size.
_WITH_UNIT = ("rmse", "mae")


def rank_value(metric: str, value: float) -> float:
    """Return the value of a metric so that more is better: rmse, mae, log_loss and calibration_error with a minus."""
    return -value if metric.startswith(_LESS_IS_BETTER) else value


def places(metric: str, value: float) -> int:
    """Return how many decimals of a metric are shown: four, or those of four digits where it has a unit."""
    if not metric.startswith(_WITH_UNIT) or value == 0:
        return 4
    return min(12, max(0, 3 - math.floor(math.log10(abs(value)))))


def numeral(metric: str, value: float | None) -> str:
    """Return the value of a metric as text."""
    return "undefined" if value is None else f"{value:.{places(metric, value)}f}"


# -- classification: probabilities (m, c) and classes (m,) -------------------------------------------------------------


def confusion_matrix(
    target: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Count rows by true class and predicted class, (classes, classes)."""
    return np.bincount(classes * target + predicted, minlength=classes**2).reshape(classes, classes)


def _confusion(predicted: Array, target: Array) -> npt.NDArray[np.int64]:
    return confusion_matrix(target, predicted.argmax(-1), predicted.shape[1])


def accuracy(predicted: Array, target: Array) -> float:
    """Return the share of the rows whose class is predicted."""
    return float(np.mean(predicted.argmax(-1) == target))


def balanced_accuracy(predicted: Array, target: Array) -> float | None:
    """Return the mean over the classes of the share of its rows that are predicted; None without rows of a class."""
    confusion = _confusion(predicted, target)
    rows = confusion.sum(1)
    return float(np.mean(confusion.diagonal() / rows)) if rows.all() else None


def f1_macro(predicted: Array, target: Array) -> float:
    """Return the mean F1 score of the classes; 0 for one that is neither there nor predicted."""
    confusion = _confusion(predicted, target)
    right, sizes = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2.0 * right / np.maximum(sizes, 1)))


def roc_auc(predicted: Array, target: Array) -> float | None:
    """Return the area under the ROC curve, the mean of each class against the rest; None without rows of a class."""
    return label_roc_auc(*_one_against_the_rest(predicted, target))


def average_precision(predicted: Array, target: Array) -> float | None:
    """Return the average precision of the positive class, or the mean over more than two; None without its rows."""
    return label_average_precision(*_one_against_the_rest(predicted, target))


def _one_against_the_rest(predicted: Array, target: Array) -> tuple[Array, Array]:
    """Return probabilities and targets as those of labels, one per class; of two classes the last one alone."""
    classes = np.arange(predicted.shape[1])
    chosen = classes[-1:] if len(classes) == 2 else classes
    return predicted[:, chosen], target[:, None] == chosen


def log_loss(predicted: Array, target: Array) -> float:
    """Return the mean of ``-log`` of the probability of the true class."""
    eps = np.finfo(np.float64).eps
    found = predicted[np.arange(len(target)), target].clip(eps, 1 - eps)
    # By the C library's logarithm: numpy's own may differ in the last bit.
    return float(np.mean(np.fromiter((-math.log(p) for p in found), np.float64, len(found))))


def calibration_error(predicted: Array, target: Array) -> float:
    """Return the expected calibration error: in 15 equal bins of the greatest probability, the distance of its mean
    from the accuracy, weighted by rows.

    Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.
    """
    confidence, right = predicted.max(-1), predicted.argmax(-1) == target
    gaps = np.bincount(calibration_bins(confidence), weights=confidence - right)
    return float(np.abs(gaps).sum() / len(target))


def calibration_bins(confidence: Array) -> npt.NDArray[np.int64]:
    """Return the number of the bin of each probability, among 15 equal ones; an edge belongs to the lower bin."""
    return np.asarray(np.clip(np.ceil(confidence * _BINS) - 1, 0, _BINS - 1), dtype=np.int64)


# -- multilabel: probabilities (m, t) and bool (m, t) ------------------------------------------------------------------


def label_average_precision(predicted: Array, target: Array) -> float | None:
    """Return the average precision, the mean over the labels; None where one has no positive."""
    return _ranking("average_precision_score", predicted, target) if target.any(0).all() else None


def label_roc_auc(predicted: Array, target: Array) -> float | None:
    """Return the area under the ROC curve, the mean over the labels; None where one has no positive or no negative."""
    return _ranking("roc_auc_score", predicted, target) if (target.any(0) & ~target.all(0)).all() else None


def _ranking(name: str, predicted: Array, target: Array) -> float:
    """Return the mean over the labels of a score of scikit-learn."""
    from sklearn import metrics

    score: Callable[[Array, Array], float] = getattr(metrics, name)
    return float(np.mean([score(target[:, i], predicted[:, i]) for i in range(target.shape[1])]))


def _f1(predicted: Array, target: Array, axis: int | None) -> Array:
    chosen = predicted >= 0.5
    right, sizes = (chosen & target).sum(axis), chosen.sum(axis) + target.sum(axis)
    return np.asarray(2.0 * right / np.maximum(sizes, 1))


def label_f1_macro(predicted: Array, target: Array) -> float:
    """Return the mean F1 score of the labels; 0 for one that is neither there nor predicted."""
    return float(_f1(predicted, target, 0).mean())


def label_f1_micro(predicted: Array, target: Array) -> float:
    """Return the F1 score of all entries together."""
    return float(_f1(predicted, target, None))


def subset_accuracy(predicted: Array, target: Array) -> float:
    """Return the share of the rows of which every label is right."""
    return float(np.mean(((predicted >= 0.5) == target).all(-1)))


def label_log_loss(predicted: Array, target: Array) -> float:
    """Return the mean of ``-log`` of the probability of what is true, over rows and labels."""
    eps = np.finfo(np.float64).eps
    return float(-np.log(np.where(target, predicted, 1 - predicted).clip(eps, 1 - eps)).mean())


# -- regression: numbers (m,) and (m,) ---------------------------------------------------------------------------------


def r2(predicted: Array, target: Array) -> float | None:
    """Return 1 minus the squared error over that of the mean; None where the target is constant."""
    if target.min() == target.max():
        return None
    return float(1 - ((target - predicted) ** 2).sum() / ((target - target.mean()) ** 2).sum())


def rmse(predicted: Array, target: Array) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean((target - predicted) ** 2)))


def mae(predicted: Array, target: Array) -> float:
    """Return the mean absolute error."""
    return float(np.mean(np.abs(target - predicted)))


REGRESSION: dict[str, Callable[[Array, Array], float | None]] = {"r2": r2, "rmse": rmse, "mae": mae}
