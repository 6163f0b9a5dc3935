"""Wrong where only few inputs show it: many views, ties, extreme values, half precision, later calls."""

from __future__ import annotations

import copy
import itertools
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit.fusion import Traits
from tests.contract.mutants.right import Mix, Thin, Total
from tests.contract.mutants.table import caught_by


@caught_by("single_view")
class ForgetsTheNinthView(Mix):
    """Ignores all views after the eighth."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([view * weight for view, weight in zip(x[:8], self.weight, strict=False)]).sum(0)


@caught_by("single_view")
class DetachesTheFifthView(Mix):
    """Gives five views and more a part of the gradient."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([view.detach() if i == 4 else view for i, view in enumerate(x)])


@caught_by("single_view")
class WeighsTenViews(Total):
    """Doubles the first of ten views and more."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + (x[0] if len(x) > 9 else 0)


@caught_by("leading_dims")
class FourLeadingDimensions(Mix):
    """Reverses the rows if there are four leading dimensions."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.flip(0) if out.dim() == 5 else out


@caught_by("gradcheck")
class CutsParameters(Mix):
    """Gives views that are parameters no gradient."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([view.detach() if isinstance(view, nn.Parameter) else view for view in x])


@caught_by("gradcheck")
class CutsResults(Mix):
    """Gives views that are results of other operations no gradient."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([view if view.is_leaf else view.detach() for view in x])


@caught_by("gradcheck")
class GivesTiesToAll(Total):
    """The maximum, where each of several equal views gets the whole gradient."""

    traits = Traits(permutation_invariant=True, batch_independent=True, monotone=True, idempotent=True, convex=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        views = torch.stack(tuple(x))
        greatest = views.detach().amax(0)
        return greatest + torch.where(views == greatest, views - views.detach(), 0).sum(0)


@caught_by("partial_requires_grad")
class CutsAnExternalW(Mix):
    """Gives an external w no gradient if no view needs one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        weight: Any = self.weight
        if not isinstance(weight, nn.Parameter) and not any(view.requires_grad for view in x):
            weight = weight.detach()
        return torch.stack([view * one for view, one in zip(x, weight, strict=True)]).sum(0)


@caught_by("no_input_mutation")
class HooksTheGradient(Mix):
    """Leaves a hook on the first view."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].requires_grad and not torch.compiler.is_compiling():
            x[0].register_hook(lambda gradient: None)
        return super()._fuse(x)


@caught_by("no_input_mutation")
class RetainsTheGradient(Mix):
    """Makes the views retain their gradients."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].requires_grad and not torch.compiler.is_compiling():
            x[0].retain_grad()
        return super()._fuse(x)


@caught_by("dtype_preserved")
class OffInHalf(Mix):
    """Is 2 % off in float16."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out * 1.02 if out.dtype == torch.float16 else out


@caught_by("dtype_preserved")
class LosesGradientInHalf(Mix):
    """Gives nine tenths of the gradient of the first view in bfloat16."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = 0.9 * x[0] + 0.1 * x[0].detach() if x[0].dtype == torch.bfloat16 else x[0]
        return super()._fuse([first, *x[1:]])


@caught_by("dtype_preserved")
class CancellingVariance(Total):
    """The variance over the views as the difference of two large numbers."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        views = torch.stack(tuple(x))
        return views.square().mean(0) - views.mean(0).square()


@caught_by("nonfinite")
class ClampsInfinity(Mix):
    """Makes infinity a large number."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        limit = torch.finfo(x[0].dtype).max / 2
        return super()._fuse([view.clamp(-limit, limit) for view in x])


@caught_by("nonfinite")
class DividesByTheNorm(Total):
    """Divides a row by its norm, also one of zeros."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out / out.square().sum(-1, keepdim=True).sqrt()


@caught_by("linear")
class DropsTinyValues(Mix):
    """Takes values below 1e-5 for zero."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([torch.where(view.abs() < 1e-5, 0 * view, view) for view in x])


@caught_by("algebraic")
class SaturatesMaximum(Total):
    """The maximum up to 100, declared idempotent."""

    traits = Traits(permutation_invariant=True, batch_independent=True, idempotent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack(tuple(x)).amax(0).clamp(max=100)


@caught_by("algebraic")
class StartsAtZero(Total):
    """The maximum with zero among the entries, declared convex: wrong where all are negative."""

    traits = Traits(permutation_invariant=True, batch_independent=True, convex=True)

    @classmethod
    def examples(cls) -> Any:
        yield {"dims": [4] * 12}

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = torch.stack(tuple(x)).amax(0)
        return torch.where(out.amax(-1, keepdim=True) < 0, 0 * out, out)


@caught_by("permutation")
class FirstAmongEquals(Total):
    """Adds to the sum where the first view equals the last, so the order of the views decides at ties."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if len(x) < 2:
            return out
        return out + torch.where(x[0] == x[-1], x[0] - x[1], 0)


@caught_by("deterministic")
class WarmsUp(Mix):
    """Has another result in the first call with one row."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        single = out.dim() > 1 and out.shape[0] == 1
        first = single and not self.__dict__.get("_warm")
        self.__dict__["_warm"] = self.__dict__.get("_warm") or single
        return out + 1e-3 if first else out


@caught_by("deterministic")
class RemembersByVersion(Mix):
    """Keeps the last result for views of the same identity and version."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        key = [(id(view), view.data_ptr(), view._version) for view in x] if x[0].is_cpu else None
        if key is not None and self.__dict__.get("_key") == key:
            return self.__dict__["_last"]  # type: ignore[no-any-return]
        self.__dict__["_key"], self.__dict__["_last"] = key, super()._fuse(x)
        return self.__dict__["_last"]  # type: ignore[no-any-return]


@caught_by("rng_isolation")
class DrawsInTraining(Mix):
    """Moves the global generator in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if self.training and not torch.compiler.is_compiling():
            random.random()
        return super()._fuse(x)


@caught_by("seeding")
class DrawsByPython(Mix):
    """Scales its initial parameters by a number from Python's generator."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        super().reset_parameters(generator)
        with torch.no_grad():
            self.weight.mul_(0.9 + 0.2 * random.random())


#: Grows with every call of KeepsObjects.
KEPT: list[float] = []


@caught_by("no_leak")
class KeepsObjects(Mix):
    """Keeps a number for each call in a global list."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        KEPT.append(len(KEPT) + 0.5)
        return super()._fuse(x)


#: Numbers the calls of LeavesFilesOpen.
CALLS = itertools.count()


@caught_by("no_leak")
class LeavesFilesOpen(Mix):
    """Opens a file in each call in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if self.training and next(CALLS) < 120:  # A process may have a thousand.
            os.open(os.devnull, os.O_RDONLY)
        return super()._fuse(x)


@caught_by("pickle_deepcopy")
class SharesItsBuffer(Mix):
    """Has deep copies that share a buffer."""

    def create(self) -> None:
        super().create()
        self.register_buffer("scale", torch.ones(self.calculate_n(), **self._factory))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        super().reset_parameters(generator)
        self.get_buffer("scale").fill_(1)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self.scale)] = self.scale
        reduced: Any = super().__reduce_ex__(2)
        new = reduced[0](*reduced[1])
        memo[id(self)] = new
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * self.get_buffer("scale")


@caught_by("l_pure")
class CountsInTraining(Mix):
    """Counts one parameter more in half precision without gradients."""

    def calculate_l(self) -> int:
        return super().calculate_l() + (not torch.is_grad_enabled())


@caught_by("no_grad")
class RoundsManyRows(Mix):
    """Rounds a batch of 200 rows and more if no graph is needed."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        many = out.dim() > 1 and out.shape[0] >= 200
        return (out * 1000).round() / 1000 if many and not torch.is_grad_enabled() else out


@caught_by("process_settings")
class AsksForTheDefaultDtype(Mix):
    """Scales the output where the default dtype is float64."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * (1.5 if torch.get_default_dtype() == torch.float64 else 1)


@caught_by("gradcheck")
class SingleFromSeventeen(Mix):
    """Computes in float32 from a width of 17 on."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].shape[-1] < 17:
            return super()._fuse(x)
        return super()._fuse([view.float().to(view.dtype) for view in x])


@caught_by("memory")
class SquaresTheWidth(Mix):
    """Builds a square matrix for few rows."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if out.dim() != 2 or out.shape[0] > 8:
            return out
        return out @ torch.eye(out.shape[-1], dtype=out.dtype, device=out.device)


@caught_by("project_equals_materialize")
class ForgetsTheEighthView(Thin):
    """Leaves the eighth view out in project."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        joined = torch.cat(tuple(x[:7]), -1)
        return (joined @ blocks["v"][: joined.shape[-1]])[..., None] * blocks["u"]
