"""Regression: t numbers per row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import metrics
from fusionkit.experiment.source import Array
from fusionkit.experiment.tasks.base import Criterion, Metric, Task, weighted_sum

#: Losses of standardized targets by element; that of Huber turns linear at one standard deviation.
_LOSSES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


@dataclass
class Regression(Task):
    """The numbers ``targets``; a target is float64 (m, t), in its units.

    Attributes:
        mean: of each target in the training part; the network learns (target - mean) / scale.
        scale: its standard deviation there.
    """

    name: ClassVar[str] = "regression"
    losses: ClassVar[tuple[str, ...]] = tuple(_LOSSES)
    targets: list[str]
    mean: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)

    @property
    def functions(self) -> dict[str, Metric]:
        """The metrics, in the units of a single target; of several targets the means in standard deviations, and each
        by itself in its units.
        """
        if self.outputs == 1:
            return {name: partial(_of_target, metric, 0) for name, metric in metrics.REGRESSION.items()}
        means: dict[str, Metric] = {name: partial(self._mean, metric) for name, metric in metrics.REGRESSION.items()}
        single: dict[str, Metric] = {
            f"{name}_{target}": partial(_of_target, metric, i)
            for i, target in enumerate(self.targets)
            for name, metric in metrics.REGRESSION.items()
        }
        return means | single

    def _mean(self, metric: Metric, predicted: Array, target: Array) -> float | None:
        mean, scale = np.asarray(self.mean), np.asarray(self.scale)
        standard = [(values - mean) / scale for values in (predicted, target)]
        found = [_of_target(metric, i, *standard) for i in range(self.outputs)]
        return None if None in found else float(np.mean(np.asarray(found, dtype=np.float64)))

    def describe(self) -> dict[str, Any]:
        """Return the name of the task, the targets, and their means and scales."""
        return {"task": self.name, "targets": self.targets, "target_mean": self.mean, "target_scale": self.scale}

    def fitted(self, target: Array) -> Regression:
        """Return the task with mean and scale of the targets of the training part.

        Raises:
            FusionError: a target is constant there, or so large or small that its variance is no number.
        """
        for name, values in zip(self.targets, target.T, strict=True):
            if values.min() == values.max():
                found = f"{values[0]:g} in all {len(values)} rows"
                raise FusionError(f"The target {name!r} should vary in the training part; found {found}.")
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # Refused below.
            mean, scale = target.mean(0), target.std(0)
        for name, values, one in zip(self.targets, target.T, scale.tolist(), strict=True):
            if not 0 < one < np.inf:
                found = f"values from {values.min():.3g} to {values.max():.3g}"
                raise FusionError(f"The target {name!r} should have a finite variance above 0; found {found}.")
        return replace(self, mean=mean.tolist(), scale=scale.tolist())

    def tensor(self, target: Array) -> Tensor:
        """Return the standardized targets (m, t) as float32."""
        return torch.from_numpy(((target - self.mean) / self.scale).astype(np.float32))

    def criterion(self, settings: TrainOptions, target: Array) -> Criterion:
        """Return the loss of standardized targets, as the mean over the targets of a row."""
        loss_of = _LOSSES[self.loss(settings)]
        if settings.class_weight is not None:
            found = settings.class_weight
            raise ConfigError(f"train.class_weight should be null for a task of regression; found {found!r}.")

        def loss(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
            return weighted_sum(loss_of(output, target.to(output.dtype), reduction="none").mean(-1), weight)

        return loss

    def in_units(self, output: Tensor) -> Tensor:
        """Return outputs (..., t) times scale plus mean."""
        return output * output.new_tensor(self.scale) + output.new_tensor(self.mean)

    def predicted(self, output: Tensor) -> Array:
        """Return the outputs (m, t) as float64."""
        return np.asarray(output.double().numpy())

    def baseline(self, target: Array) -> Array:
        """Return the means (1, t)."""
        return np.asarray(target.mean(0, keepdims=True))

    def array(self, predicted: Array) -> Array:
        """Return a number per row, (m,), or several, (m, t)."""
        return predicted[:, 0] if self.outputs == 1 else predicted


def _of_target(metric: Metric, i: int, predicted: Array, target: Array) -> float | None:
    return metric(predicted[:, i], target[:, i])
