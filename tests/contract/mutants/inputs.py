"""Wrong in what they take, ignore or write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusionkit.fusion import Traits
from tests.contract.mutants.right import Mix, Thin, Total
from tests.contract.mutants.table import caught_by


@caught_by("wrong_dims")
class IgnoresThirdView(Mix):
    """Silently drops views beyond the ones it knows."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        return super().forward(x[: len(self.resolve_dims())], w, device, mask)


@caught_by("wrong_dims")
class RawShapeError(Mix):
    """Lets torch complain about the widths."""

    def _views(self, x: Any) -> Any:
        return list(x) if x and len(x) == len(self.resolve_dims()) else super()._views(x)


@caught_by("no_input_mutation")
class WritesViews(Mix):
    """Writes to a view, though not another value."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        x[0].detach().mul_(1)
        return super()._fuse([x[0].clone(), *x[1:]])


@caught_by("single_view")
class NeedsTwo(Mix):
    """Reads the second view without looking whether there is one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + 0 * x[1]


@caught_by("all_inputs_matter")
class DropsTheLast(Mix):
    """Multiplies the last view by zero."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([*x[:-1], 0 * x[-1]]) if len(x) > 1 else super()._fuse(x)


@caught_by("all_inputs_matter")
class SaysConstantToDrop(DropsTheLast):
    """Multiplies the last view by zero, and calls itself constant."""

    traits = Traits(linear=True, batch_independent=True, constant=True)


@caught_by("all_inputs_matter")
class SumSaysConstant(Total):
    """A sum that declares that it ignores its views."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, constant=True)


@caught_by("all_inputs_matter")
class ForgetsTheThirdView(Thin):
    """Multiplies two views, and ignores others."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        joined = torch.cat(tuple(x[:2]), -1)
        return (joined @ blocks["v"][: joined.shape[-1]])[..., None] * blocks["u"]


@caught_by("all_inputs_matter")
class SaysConstant(Thin):
    """Has a W that follows from w, and calls itself constant."""

    traits = Traits(constant=True)


@caught_by("batch_mismatch")
class Broadcasts(Mix):
    """Broadcasts the leading dimensions of the views."""

    def _views(self, x: Any) -> Any:
        try:
            lead = torch.broadcast_shapes(*(view.shape[:-1] for view in x))
        except (RuntimeError, AttributeError):
            return super()._views(x)
        return super()._views([view.expand(*lead, view.shape[-1]) for view in x])


@caught_by("container_types")
class TakesGenerators(Mix):
    """Makes a list of whatever it gets."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        return super().forward(list(x), w, device, mask)


@caught_by("noncontiguous")
class AssumesStrides(Mix):
    """Reads the memory of a view as if it were contiguous."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = x[0]
        if not first.requires_grad and first.dim() == 2 and type(first) is Tensor and first.device.type == "cpu":
            first = torch.as_strided(first, first.shape, (first.shape[1], 1)) if first.stride(1) != 2 else first
        return super()._fuse([first, *x[1:]])


@caught_by("noncontiguous")
class CountsEachTensorOnce(Mix):
    """Takes a tensor that is given as two views for one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if all(view is x[0] for view in x) and len(x) > 1:
            return x[0] * self.weight[0]
        return super()._fuse(x)


class _Double(torch.autograd.Function):
    """2 x, whose backward reads the gradient as if it were contiguous."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return 2 * gradient if gradient.is_contiguous() else 3 * gradient

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Any:
        return 2 * tangent


@caught_by("noncontiguous")
class AssumesStridesInBackward(Total):
    """Reads the memory of the gradient as if it were contiguous."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out: Tensor = _Double.apply(super()._fuse(x))  # type: ignore[no-untyped-call]
        return out


@caught_by("output_aliasing")
class ReturnsTheFirst(Total):
    """Returns the first view itself."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return x[0]


@caught_by("output_aliasing")
class ReturnsASingleView(Total):
    """Returns a view that is alone as it is."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) if len(x) > 1 else x[0]


@caught_by("output_aliasing")
class SaysThatItAliases(Total):
    """Declares an aliasing that never happens."""

    traits = Traits(permutation_invariant=True, linear=True, aliases_input=True)
