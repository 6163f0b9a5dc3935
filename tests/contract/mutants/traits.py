"""Declare what they do not do, or do not declare what they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit.fusion import Fusion, Traits
from tests.contract.mutants.right import Mix, Total
from tests.contract.mutants.table import caught_by


@caught_by("batch_independence")
class Centers(Mix):
    """Subtracts a mean over the rows and declares them independent."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        rows = out.reshape(-1, out.shape[-1])
        return out - 0.5 * rows.sum(0) / max(1, rows.shape[0])


@caught_by("batch_independence")
class OtherForOneRow(Mix):
    """Treats a single row in another way."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return 2 * out if out.numel() == out.shape[-1] else out


@caught_by("batch_independence")
class OtherForManyRows(Mix):
    """Treats more than forty rows in another way."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.round() if out.numel() > 40 * out.shape[-1] else out


@caught_by("permutation")
class SaysInvariant(Mix):
    """Declares an invariance that its weights break."""

    traits = Traits(linear=True, batch_independent=True, permutation_invariant=True)


@caught_by("permutation")
class DoesNotSayInvariant(Total):
    """Is invariant and does not say so."""

    traits = Traits(linear=True, batch_independent=True)


@caught_by("stochastic")
class DropsOut(Mix):
    """Drops entries in training mode and does not say so."""

    traits = Traits(linear=True, batch_independent=True, train_eval_differ=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return nn.functional.dropout(super()._fuse(x), 0.5, self.training)


@caught_by("stochastic")
class SaysStochastic(Mix):
    """Declares a randomness that never happens."""

    traits = Traits(stochastic=True)


@caught_by("train_eval")
class DoublesInTraining(Mix):
    """Doubles its output in training mode and does not say so."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * (2 if self.training else 1)


@caught_by("train_eval")
class OtherGradientInTraining(Mix):
    """Loses a part of a gradient in training mode only."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = 0.5 * x[0] + 0.5 * x[0].detach() if self.training else x[0]
        return super()._fuse([first, *x[1:]])


@caught_by("train_eval")
class TrainsNothing(Mix):
    """Loses the gradient of its parameters in training mode only."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        weights = self.weight.detach() if self.training else self.weight
        return torch.stack([view * weight for view, weight in zip(x, weights, strict=True)]).sum(0)


@caught_by("train_eval")
class SaysThatModesDiffer(Mix):
    """Declares a difference that is not there."""

    traits = Traits(linear=True, batch_independent=True, train_eval_differ=True)


@caught_by("linear")
class Biased(Mix):
    """Adds one and declares itself linear."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + 1


@caught_by("algebraic")
class SaysIdempotent(Total):
    """A sum that declares itself idempotent."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, idempotent=True)


@caught_by("algebraic")
class SaysConvex(Total):
    """A sum that declares itself convex."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, convex=True)


@caught_by("algebraic")
class SaysConvexOfUnequalViews(Fusion):
    """Twice the concatenation, which declares itself convex."""

    traits = Traits(linear=True, batch_independent=True, convex=True)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4, 3]}

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return sum(self.resolve_dims(dims))

    def calculate_l(self) -> int:
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return 2 * torch.cat(tuple(x), -1)


@caught_by("algebraic")
class SaysMonotone(Mix):
    """Has negative weights and declares itself monotone."""

    traits = Traits(linear=True, batch_independent=True, monotone=True)
