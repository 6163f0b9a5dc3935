"""Multilabel: any number of t labels per row."""

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
class Multilabel(Task):
    """The labels ``classes``; a target is bool (m, t).  A label is predicted at the probability 0.5."""

    name: ClassVar[str] = "multilabel"
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "focal")
    classes: list[Any]

    @property
    def functions(self) -> dict[str, Metric]:
        """The metrics, from probabilities (m, t)."""
        return {
            "average_precision": metrics.label_average_precision,
            "roc_auc": metrics.label_roc_auc,
            "f1_macro": metrics.label_f1_macro,
            "f1_micro": metrics.label_f1_micro,
            "subset_accuracy": metrics.subset_accuracy,
            "log_loss": metrics.label_log_loss,
        }

    def describe(self) -> dict[str, Any]:
        """Return the name of the task and the labels."""
        return {"task": self.name, "classes": self.classes}

    def tensor(self, target: Array) -> Tensor:
        """Return zeros and ones (m, t) as float32."""
        return torch.from_numpy(target.astype(np.float32))

    def criterion(self, settings: TrainOptions, target: Array) -> Criterion:
        """Return the binary cross-entropy, or the focal loss, as the mean over the labels of a row."""
        is_focal, positives = self.loss(settings) == "focal", self._positive_weights(settings, target)

        def loss(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
            target = target.to(output.dtype)
            losses = F.binary_cross_entropy_with_logits(output, target, reduction="none")
            if is_focal:
                losses = focal(losses, settings.focal_gamma)
            if positives is not None:
                losses = losses * torch.where(target > 0, positives.to(losses), 1.0)
            return weighted_sum(losses.mean(-1), weight)

        return loss

    def _positive_weights(self, settings: TrainOptions, target: Array) -> Tensor | None:
        """Return the weight of the positives of each label (t,); balanced: the negatives over the positives."""
        positives = target.sum(0)
        # A label that all rows or none have cannot be balanced.
        usual = (positives > 0) & (positives < len(target))
        balanced = np.where(usual, (len(target) - positives) / np.maximum(positives, 1), 1.0)
        return self._weights_of_classes(settings, balanced)

    def predicted(self, output: Tensor) -> Array:
        """Return the probabilities (m, t) of logits."""
        return np.asarray(output.double().sigmoid().numpy())

    def baseline(self, target: Array) -> Array:
        """Return the share of the rows that have each label, (1, t)."""
        return np.asarray(target.mean(0, keepdims=True))

    def groups(self, target: Array) -> dict[str, Array]:
        """Return the rows that have each label; a row may belong to several, or to none."""
        return {value_text(name): target[:, i] for i, name in enumerate(self.classes)}

    def array(self, predicted: Array) -> Array:
        """Return 0 and 1 (m, t), in the order of the labels."""
        return (predicted >= 0.5).astype(np.int64)
