"""A classifier with scikit-learn's interface."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets

from fusionkit._util.trees import to_python
from fusionkit.errors import FusionError
from fusionkit.experiment.estimator import FusionEstimator
from fusionkit.experiment.source import Array
from fusionkit.experiment.tasks.choice import Target
from fusionkit.experiment.tasks.classification import Classification


@dataclass(eq=False, repr=False, kw_only=True)
class FusionClassifier(ClassifierMixin, FusionEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Predict one of c classes per row; ``FusionEstimator`` describes its other parameters and attributes.

    Args:
        loss: cross_entropy, the default, or focal.
        focal_gamma: how much the focal loss turns to the hard rows.
        class_weight: of the classes in the loss: "balanced", inversely to their rows; a mapping of classes to weights,
            1 for others; None: 1 for all.
        label_smoothing: part of the probability that is spread over the other classes, by cross_entropy.
        validation_fraction: stratified by class; the score is the accuracy.

    Attributes:
        classes_: (c,) the classes, sorted.

    Example:
        >>> from sklearn.model_selection import GridSearchCV
        >>> search = GridSearchCV(
        ...     FusionClassifier(views=[76, 216, 64, 240, 47, 6]),
        ...     {"fabrication": ["dense", {"name": "lowrank", "r": 2}], "n": [16, 64]},
        ... )
    """

    focal_gamma: float = 2.0
    class_weight: str | Mapping[Any, float] | None = None
    label_smoothing: float = 0.1

    def predict_proba(self, X: Any, mask: Any = None) -> npt.NDArray[np.float64]:
        """Return the probabilities of the classes, (m, c); ``mask`` as in ``fit``."""
        outputs = self._outputs(X, mask)
        return self.model_.task.predicted(outputs)

    def predict(self, X: Any, mask: Any = None) -> npt.NDArray[Any]:
        """Return the class of every row, (m,); ``mask`` as in ``fit``."""
        outputs = self._outputs(X, mask)
        return np.asarray(self.classes_[outputs.argmax(-1).numpy()])

    def score(self, X: Any, y: Any, sample_weight: Any = None, mask: Any = None) -> float:
        """Return the accuracy; ``mask`` as in ``fit``."""
        return float(accuracy_score(y, self.predict(X, mask), sample_weight=sample_weight))

    def _target(self, y: Array) -> Target:
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        _check_classes(self.classes_, len(y))
        return Target(Classification(to_python(self.classes_.tolist())), index.astype(np.int64))


def _check_classes(classes: npt.NDArray[Any], rows: int) -> None:
    """Refuse a single class; warn where the numbers are rather measurements than classes."""
    if len(classes) < 2:
        raise FusionError(f"y should contain at least two classes; found one class, {classes.tolist()[0]!r}.")
    if classes.dtype.kind in "fiu" and len(classes) > 20 and 3 * len(classes) > rows:
        found = f"found {len(classes)} different numbers in {rows} rows, which may be the target of a regression"
        warnings.warn(f"y should contain classes; {found}: FusionRegressor.", UserWarning, stacklevel=6)
