"""Wrong in second, forward or batched derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusionkit.fusion import Traits
from tests.contract.mutants.right import Mix, Total
from tests.contract.mutants.table import caught_by


class _Square(torch.autograd.Function):
    """x^2, whose backward cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * gradient


class _Cube(torch.autograd.Function):
    """x^3, without a forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * x * gradient


@caught_by("gradgradcheck")
class OnceDifferentiable(Total):
    """Has a wrong second derivative."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([_Square.apply(view) for view in x])  # type: ignore[no-untyped-call]


@caught_by("gradgradcheck")
class SaysOnceDifferentiable(Total):
    """Has second derivatives, and declares that it has none."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, once_differentiable_only=True)


@caught_by("forward_ad")
class WithoutForwardMode(Total):
    """Has no forward mode."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([_Cube.apply(view) for view in x])  # type: ignore[no-untyped-call]


@caught_by("partial_requires_grad")
class AlwaysRequiresGrad(Mix):
    """Gives its output a graph that nobody asked for."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not out.requires_grad:
            out = out.detach().requires_grad_()
        return out


@caught_by("activation_checkpoint")
class FlipsAtEachCall(Mix):
    """Computes every other call differently."""

    flip = False

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        self.flip = not self.flip
        return super()._fuse(x).exp() if self.flip else super()._fuse(x)


@caught_by("functional")
class AsksForValues(Mix):
    """Decides by the value of a parameter."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * (2 if bool(self.weight.sum() > 1e9) else 1)


@caught_by("functional")
class OtherUnderVmap(Total):
    """Computes something else under vmap."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return 2 * out if torch._C._functorch.is_batchedtensor(out) else out
