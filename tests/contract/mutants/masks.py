"""Operators that treat absent views in a wrong way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit.fusion import ElementwiseFusion, Fusion, Traits, present_count
from tests.contract.mutants.right import Mean, Pool, WeightedSum
from tests.contract.mutants.table import caught_by


@caught_by("mask_restriction")
class DividesByK(Mean):
    """Divides the sum of the present views by k."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return torch.stack(tuple(x)).sum(0) / len(x)


@caught_by("mask_restriction")
class LowScore(Pool):
    """Gives absent views the score -1e4, which a present one may undercut."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self._pooled(x, torch.where(mask, self._scores(x), -1e4), mask)


@caught_by("mask_restriction")
class OnlyInEvaluation(Mean):
    """Ignores the mask in training mode."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self._fuse(x) if self.training else super()._fuse_masked(x, mask)


@caught_by("mask_restriction")
class OnlyWhileRecording(Mean):
    """Ignores the mask where no gradient is recorded."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return super()._fuse_masked(x, mask) if torch.is_grad_enabled() else self._fuse(x)


@caught_by("mask_restriction")
class Detached(Mean):
    """Has no gradient with a mask."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return super()._fuse_masked(x, mask).detach()


@caught_by("mask_restriction")
class OneMaskPerBatch(Mean):
    """Takes the count of the first row for all."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return torch.stack(tuple(x)).sum(0) / present_count(mask.reshape(-1, len(x))[:1], x[0].dtype).squeeze()


@caught_by("mask_restriction")
class WrongFill(WeightedSum):
    """Says that it fills absent views with 0, and takes 1."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self._fuse([torch.where(mask[..., i : i + 1], view, 1.0) for i, view in enumerate(x)])


@caught_by("mask_restriction")
class ForgetsPerView(WeightedSum):
    """Promises to skip absent views, and keeps the weights of the first ones."""

    traits = Traits(linear=True, batch_independent=True, missing="skip")

    def restrict(self, views: Sequence[int]) -> Fusion:
        made = super().restrict(views)
        made.weight = nn.Parameter(self.weight.detach()[: len(views)].clone())
        return made


@caught_by("mask_content")
class Multiplies(Mean):
    """Multiplies the views by the mask: 0 times NaN is NaN."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        if mask is None or mask.shape != (*x[0].shape[:-1], len(x)) or mask.dtype != torch.bool or mask.is_meta:
            return super().forward(x, w, device, mask)
        total = sum(view * mask[..., i : i + 1] for i, view in enumerate(x))
        return total / present_count(mask, x[0].dtype)  # type: ignore[no-any-return]


@caught_by("mask_all_present")
class GuessesFromZeros(Mean):
    """Counts a row of zeros as absent."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        there = torch.stack([view.ne(0).any(-1) for view in x], -1)
        return super()._fuse_masked(x, mask & there)


@caught_by("mask_all_present")
class MendsNaN(Mean):
    """Replaces NaN with 0 where there is a mask."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return super()._fuse_masked([view.nan_to_num(0.0) for view in x], mask)


@caught_by("mask_none_entry")
class DropsNone(WeightedSum):
    """Drops a view that is None, so that the others get the weights before theirs."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        if isinstance(x, list) and mask is None and any(view is None for view in x) and x != [None] * len(x):
            there = [view for view in x if view is not None]
            x = [*there, *(torch.zeros_like(there[0]) for _ in range(len(x) - len(there)))]
        return super().forward(x, w, device, mask)


@caught_by("mask_permutation")
class FirstCountsTwice(Mean):
    """Gives the first view twice the weight of the others where there is a mask."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return super()._fuse_masked([2 * x[0], *x[1:]], mask)


@caught_by("mask_batch")
class CountsTheSecondDimension(Mean):
    """Counts along dimension 1, the last one for a batch without further dimensions."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        count = mask.sum(min(1, mask.ndim - 1), keepdim=True).clamp(min=1).to(x[0].dtype)
        return torch.stack(tuple(x)).sum(0) / (count if mask.ndim < 3 else count.amax(-1, keepdim=True))


@caught_by("mask_empty_row")
class MendsBehindTheSoftmax(Pool):
    """Replaces NaN behind the softmax, where it stays in the gradient."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        scores = self._scores(x) + torch.where(mask, 0.0, -torch.inf)
        return self._weighted(x, scores.softmax(-1).nan_to_num(0.0))


@caught_by("mask_empty_row")
class DividesByZero(Mean):
    """Divides by the number of present views, which may be 0."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return torch.stack(tuple(x)).sum(0) / mask.sum(-1, keepdim=True).to(x[0].dtype)


@caught_by("mask_untouched")
class MendsTheMask(Mean):
    """Marks the first view of an empty row as present, in the caller's mask."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        mask[..., 0] |= ~mask.any(-1)
        return super()._fuse_masked(x, mask)


@caught_by("mask_untouched")
class KeepsTheMask(Mean):
    """Keeps the last mask."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        self.last = mask
        return super()._fuse_masked(x, mask)


@caught_by("mask_refused")
class TakesOneMaskForAll(Mean):
    """Expands a mask (k,) over the batch."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        if isinstance(mask, Tensor) and mask.shape == (len(x),):
            mask = mask.expand(*x[0].shape[:-1], len(x))
        return super().forward(x, w, device, mask)


@caught_by("mask_refused")
class RefusesWithoutAReason(ElementwiseFusion):
    """``A_1``; refuses masks, and does not say what to do."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack(tuple(x)).prod(0)

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        if mask is not None:
            raise ValueError("no masks")
        return super().forward(x, w, device, mask)


@caught_by("mask_options")
class CountsAllParameters(WeightedSum):
    """Counts every parameter, also those that the option `missing` adds."""

    def calculate_l(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters()) or len(self.resolve_dims())


@caught_by("mask_functional")
class WideResult(Mean):
    """Returns float64 where there is a mask."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return super()._fuse_masked([view.double() for view in x], mask)


@caught_by("mask_functional")
class StacksPairs(Mean):
    """Makes a tensor of all pairs of views where there is a mask."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        stack = torch.stack(tuple(x))
        pairs = stack.unsqueeze(0).expand(16, *stack.shape).clone()
        return super()._fuse_masked(list(pairs.mean(0)), mask)


@caught_by("mask_compiled")
class BranchesOnTheMask(Mean):
    """Takes a shorter way where the mask is True everywhere."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self._fuse(x) if mask.all() else super()._fuse_masked(x, mask)


@caught_by("mask_exported")
class BranchesOnRows(Mean):
    """Takes another way for more than five rows where there is a mask."""

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        if mask.ndim > 1 and mask.shape[0] > 5:
            return super()._fuse_masked(x, mask)
        return super()._fuse_masked([view.clone() for view in x], mask)
