"""Operators that explain themselves in a wrong way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
