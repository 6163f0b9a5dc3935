"""A regressor with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from fusionkit.errors import FusionError
from fusionkit.experiment.estimator import FusionEstimator
from fusionkit.experiment.source import Array
from fusionkit.experiment.tasks.choice import Target
from fusionkit.experiment.tasks.regression import Regression


@dataclass(eq=False, repr=False, kw_only=True)
class FusionRegressor(RegressorMixin, FusionEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Predict one number per row, or t of them; ``FusionEstimator`` describes its other parameters and attributes.

    ``y`` is (m,) or (m, t), and predictions have its shape.  The targets are standardized by the rows trained on.

    Args:
        loss: mse, the default, mae, or huber, which turns linear at one standard deviation.
        validation_fraction: the score is R^2, the mean over the targets.
    """

    _y_options: ClassVar[Mapping[str, Any]] = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2}

    def predict(self, X: Any, mask: Any = None) -> npt.NDArray[np.float64]:
        """Return the numbers of every row, (m,) or (m, t); ``mask`` as in ``fit``."""
        outputs = self._outputs(X, mask)
        predicted = self.model_.task.predicted(outputs)
        return predicted[:, 0] if self._one_dimensional else predicted

    def score(self, X: Any, y: Any, sample_weight: Any = None, mask: Any = None) -> float:
        """Return R^2, the mean over the targets; ``mask`` as in ``fit``."""
        return float(r2_score(y, self.predict(X, mask), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _target(self, y: Array) -> Target:
        if y.dtype.kind not in "fiub":
            raise FusionError(f"y should contain numbers; found dtype {y.dtype}.")
        self._one_dimensional = y.ndim == 1
        values = y.astype(np.float64).reshape(len(y), -1)
        names = ["y"] if self._one_dimensional else [str(i) for i in range(values.shape[1])]
        return Target(Regression(names), values)
