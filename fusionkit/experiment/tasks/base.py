"""The base of the tasks: from the outputs of a network to loss, predictions and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fusionkit._util.text import listed, value_text
from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError, nearest
from fusionkit.experiment.source import Array

Metric = Callable[[Array, Array], float | None]
#: The loss of a batch, summed over its rows: output (b, c), target (b,) or (b, t), weight (b,) or None -> ().
Criterion = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Task(ABC):
    """Subclasses define ``functions``, ``describe`` and the methods without a body here.

    Attributes:
        name: in configs and records.
        losses: the names of its losses, the default first.
        classes: the label values of a classification, or the labels of a multilabel task; else empty.
        targets: the names of the numbers of a regression; else empty.
    """

    name: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    classes: Sequence[Any] = ()
    targets: Sequence[str] = ()

    @property
    def outputs(self) -> int:
        """The width of the network's output: the number of classes, labels or targets."""
        return len(self.classes or self.targets)

    @property
    @abstractmethod
    def functions(self) -> dict[str, Metric]:
        """The metrics, the default first: (predicted, target) of m rows -> a number; None where it is undefined."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return JSON types from which ``from_description`` builds the same task."""

    def fitted(self, target: Array) -> Task:
        """Return the task with what it learns from the targets of the training part."""
        return self

    @abstractmethod
    def tensor(self, target: Array) -> Tensor:
        """Return targets as the criterion takes them."""

    @abstractmethod
    def criterion(self, settings: TrainOptions, target: Array) -> Criterion:
        """Return the loss.

        Args:
            settings: which one, and its options.
            target: of the training part, from which balanced weights follow.

        Raises:
            ConfigError: options that do not fit the task or its classes.
        """

    def in_units(self, output: Tensor) -> Tensor:
        """Return the outputs of a network in the units of the target, if that has any."""
        return output

    @abstractmethod
    def predicted(self, output: Tensor) -> Array:
        """Return float64 probabilities (m, c), or the numbers (m, t) of a regression, for outputs in units."""

    @abstractmethod
    def baseline(self, target: Array) -> Array:
        """Return the prediction (1, c) of a model that ignores the views and knows only the targets of training."""

    @abstractmethod
    def array(self, predicted: Array) -> Array:
        """Return the predicted value of each row: a label or a number (m,); labels' 0 and 1, or numbers, (m, t)."""

    def values(self, predicted: Array) -> list[Any]:
        """Return what ``array`` does, in JSON types."""
        return self.array(predicted).tolist()  # type: ignore[no-any-return]

    def groups(self, target: Array) -> dict[str, Array]:
        """Return which rows (m,) belong to each class or label, by its text; without any, ``all`` rows."""
        return {"all": np.ones(len(target), dtype=bool)}

    def measure(self, predicted: Array, target: Array) -> dict[str, float | None]:
        """Return every metric as ``score`` does; {} for no rows."""
        return {name: self.score(name, predicted, target) for name in self.functions} if len(target) else {}

    def score(self, name: str, predicted: Array, target: Array) -> float | None:
        """Return a metric; None where it is undefined, infinite, or something is predicted that is not finite."""
        if not np.isfinite(predicted).all():
            return None
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # Squares of large or small numbers.
            found = self.functions[name](predicted, target)
        return found if found is not None and np.isfinite(found) else None

    def metric(self, name: str | None) -> str:
        """Return the name of a metric, the default for None.

        Raises:
            ConfigError: the task has no such metric.
        """
        return self._named("metric", name, list(self.functions))

    def loss(self, settings: TrainOptions) -> str:
        """Return the name of the loss, the default for null.

        Raises:
            ConfigError: the task has no such loss.
        """
        return self._named("train.loss", settings.loss, self.losses)

    def _named(self, key: str, name: str | None, names: Sequence[str]) -> str:
        """Return one of these names, the first for None."""
        if name is not None and name not in names:
            should = f"{key} should be null or one of {', '.join(names)} for a task of {self.name}"
            raise ConfigError(f"{should}; found {name!r}.{nearest(name, names)}")
        return name or names[0]

    def _weights_of_classes(self, settings: TrainOptions, balanced: Array) -> Tensor | None:
        """Return the weight of each class in the loss: ``balanced``, or from a mapping; None: 1."""
        chosen = settings.class_weight
        if chosen is None:
            return None
        if not isinstance(chosen, Mapping):
            return torch.from_numpy(balanced)
        weights, places = np.ones(self.outputs), {value_text(one): i for i, one in enumerate(self.classes)}
        for key, weight in chosen.items():
            if value_text(key) not in places:
                should = f"train.class_weight should name classes among {listed(places, 12)}"
                raise ConfigError(f"{should}; found {key!r}.{nearest(value_text(key), places)}")
            weights[places[value_text(key)]] = weight
        return torch.from_numpy(weights)


def weighted_sum(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Return the sum of the losses of rows (b,), each times its weight."""
    return losses.sum() if weight is None else (losses * weight).sum()


def focal(losses: Tensor, gamma: float) -> Tensor:
    """Return the focal loss ``(1 - p)^gamma`` times the cross-entropies ``-log(p)``, of any shape.

    Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 4.
    """
    # At p = 1 the gradient of a power below 1 is infinite, and infinity times 0 is NaN.
    missed = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
    return missed**gamma * losses
