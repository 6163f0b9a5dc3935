"""Classification: one of c classes per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fusionkit._util.text import value_text
from fusionkit.config.options import TrainOptions
from fusionkit.experiment import metrics
from fusionkit.experiment.source import Array
from fusionkit.experiment.tasks.base import Criterion, Metric, Task, focal, weighted_sum


@dataclass
class Classification(Task):
    """One of ``classes``, which are sorted; a target is (m,), indices into them.

    With two classes the last one is the positive one of ROC and average precision.
    """

    name: ClassVar[str] = "classification"
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "focal")
    classes: list[Any]

    @property
    def functions(self) -> dict[str, Metric]:
        """The metrics, from probabilities (m, c)."""
        return {
            "accuracy": metrics.accuracy,
            "balanced_accuracy": metrics.balanced_accuracy,
            "f1_macro": metrics.f1_macro,
            "roc_auc": metrics.roc_auc,
            "average_precision": metrics.average_precision,
            "log_loss": metrics.log_loss,
            "calibration_error": metrics.calibration_error,
        }

    def describe(self) -> dict[str, Any]:
        """Return the classes; a description without a task is one of a classification."""
        return {"classes": self.classes}

    def tensor(self, target: Array) -> Tensor:
        """Return the indices (m,) as int64."""
        return torch.from_numpy(target.astype(np.int64, copy=False))

    def criterion(self, settings: TrainOptions, target: Array) -> Criterion:
        """Return the cross-entropy, or the focal loss of the probability of the true class."""
        is_focal, smoothing = self.loss(settings) == "focal", settings.label_smoothing
        by_class = self._class_weights(settings, target)

        def loss(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
            if by_class is None and weight is None and not is_focal:
                return F.cross_entropy(output, target, reduction="sum", label_smoothing=smoothing)
            losses = F.cross_entropy(output, target, reduction="none", label_smoothing=0.0 if is_focal else smoothing)
            if is_focal:
                losses = focal(losses, settings.focal_gamma)
            if by_class is not None:
                losses = losses * by_class.to(losses)[target]
            return weighted_sum(losses, weight)

        return loss

    def _class_weights(self, settings: TrainOptions, target: Array) -> Tensor | None:
        """Return the weight of each class (c,); balanced: the rows over c times those of the class."""
        counts = np.bincount(target, minlength=self.outputs)
        return self._weights_of_classes(settings, len(target) / (self.outputs * np.maximum(counts, 1)))

    def predicted(self, output: Tensor) -> Array:
        """Return the probabilities (m, c) of logits."""
        return np.asarray(output.double().softmax(-1).numpy())

    def baseline(self, target: Array) -> Array:
        """Return the shares of the classes, (1, c): the largest class is predicted."""
        return np.bincount(target, minlength=self.outputs)[None] / len(target)

    def groups(self, target: Array) -> dict[str, Array]:
        """Return the rows of each true class."""
        return {value_text(name): target == i for i, name in enumerate(self.classes)}

    def array(self, predicted: Array) -> Array:
        """Return the most probable class of each row."""
        values: Array = np.asarray(self.classes)[predicted.argmax(-1)]
        return values

    def values(self, predicted: Array) -> list[Any]:
        """Return the most probable class of each row, as it stands in the classes."""
        return [self.classes[i] for i in predicted.argmax(-1).tolist()]
