"""Operators that explain themselves in a wrong way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import masked_softmax
from tests.contract.mutants.right import Says
from tests.contract.mutants.table import caught_by


@caught_by("explain")
class AnotherOutput(Says):
    """Computes the explained output in another order, with other bits."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        return {**said, "output": said["output"] * 3 / 3.0000001}

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._explain(x, None)["output"]

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return super()._explain(x, mask)["output"]


@caught_by("explain")
class WeighsAbsentViews(Says):
    """Says that absent views count as much as present ones."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        return {**super()._explain(x, mask), "weights": self._scores(x).softmax(-1)}


@caught_by("explain")
class Undocumented(Says):
    """Has a key that no docstring names."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        return {**said, "smallest": said["weights"].amin(-1)}


@caught_by("explain")
class AnotherShape(Says):
    """Keeps a dimension that the docstring does not have: `largest` (...)."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        return {**said, "largest": said["largest"].unsqueeze(-1)}


@caught_by("explain")
class OneWeightPerBatch(Says):
    """Says the weights of the first row for all."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        weights = said["weights"]
        return {**said, "weights": weights[0] if weights.ndim > 1 else weights}


@caught_by("explain")
class DetachedLoss(Says):
    """Says a `loss` () without a gradient, which trains nothing."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        return {**said, "loss": said["weights"].square().mean().detach()}


@caught_by("explain")
class KeepsWhatItSays(Says):
    """Stores the weights of the last call."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        self.last = float(said["weights"].sum()) if not torch.compiler.is_compiling() else 0.0
        return said

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._explain(x, None)["output"]

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return super()._explain(x, mask)["output"]


class Apart(Says):
    """Has hooks of its own for ``forward``."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._explain(x, None)["output"]

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return super()._explain(x, mask)["output"]


@caught_by("explain")
class AnotherOutputWithoutGradients(Says):
    """Computes the output in another order, with other bits, where no gradients are recorded."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out if torch.is_grad_enabled() else out * 3 / 3.0000001


@caught_by("explain")
class ExplainsInDouble(Apart):
    """Explains in float64 whatever the views are."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        return {key: value.double() for key, value in super()._explain(x, mask).items()}


@caught_by("explain")
class KeepsWeightsInTraining(Apart):
    """Stores the weights of the last call in training mode."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        if self.training:
            self.last = said["weights"]
        return said


@caught_by("explain")
class WritesIntoViews(Apart):
    """Explains the clamped views that it leaves behind."""

    def _scores(self, x: Sequence[Tensor]) -> Tensor:
        return super()._scores([view.clamp(max=0.5) for view in x])

    def _weighted(self, x: Sequence[Tensor], weights: Tensor) -> Tensor:
        return super()._weighted([view.clamp(max=0.5) for view in x], weights)

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        for view in x:
            view.detach().clamp_(max=0.5)
        return said


@caught_by("explain")
class LossOfRows(Says):
    """Says a `loss` (...) of each row, which no backward takes."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        return {**said, "loss": said["weights"].square().mean(-1)}


@caught_by("explain")
class LossInTrainingAlone(Says):
    """Says a `loss` () in training mode alone, so that an evaluated operator seems to have none."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        return {**said, "loss": said["weights"].square().mean()} if self.training else said


@caught_by("explain")
class AnotherNumber(Says):
    """Says three numbers that it documents as two: `extremes` (..., 2)."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        return {**said, "extremes": torch.stack([said["largest"]] * 3, -1)}


@caught_by("explain")
class NothingToWeigh(Apart):
    """Says weights that are NaN in a row without views."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        scores = self._scores(x)
        said = super()._explain(x, mask)
        if mask is None:
            return said
        weights = masked_softmax(scores, mask)
        return {**said, "weights": torch.where(mask.any(-1, keepdim=True), weights, torch.nan)}
