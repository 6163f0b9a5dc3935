"""Wrong in memory, state and values that change between calls, and at large sizes of fabrications."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fusionkit.fusion import Traits
from tests.contract.mutants.right import Drops, Frozen, Mix, Thin, Total
from tests.contract.mutants.table import caught_by

#: What operators keep outside of their attributes.
STATE: WeakKeyDictionary[torch.nn.Module, dict[str, Any]] = WeakKeyDictionary()
#: Sizes n*D that count as large here.
MANY_ENTRIES = 10**4


@caught_by("nonfinite")
class EpsilonThatUnderflows(Total):
    """Divides by the norm and 1e-12, which is zero in float16: NaN for a row of zeros."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        size = out.abs().sum(-1, keepdim=True)
        return out / (size + 1e-12 * torch.ones_like(size))


@caught_by("extreme_values")
class PlainSoftmax(Total):
    """Weighs the views by a softmax without its maximum, which is NaN for large views."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        views = torch.stack(tuple(x))
        weights = views.exp()
        return (views * weights / weights.sum(0)).sum(0)


@caught_by("deterministic")
class WarmsUpForFiveRows(Mix):
    """Has another result in the first call with five rows."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if out.dim() != 2 or out.shape[0] != 5 or "warm" in STATE.setdefault(self, {}):
            return out
        STATE[self]["warm"] = True
        return out + 1e-3


@caught_by("deterministic")
class CachesItsWeights(Mix):
    """Keeps twice the weights until their version changes, which a write to ``.data`` does not change."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        weight: Any = self.weight
        if torch.is_grad_enabled() or not weight.is_cpu or not isinstance(weight, torch.nn.Parameter):
            return super()._fuse(x)
        key = (id(weight), weight.data_ptr(), weight._version, weight.dtype)
        kept = STATE.setdefault(self, {})
        if kept.get("key") != key:
            kept.update(key=key, weight=weight, twice=2 * weight)
        return torch.stack([view * one / 2 for view, one in zip(x, kept["twice"], strict=True)]).sum(0)


#: Numbers the calls of SeedsInTraining.
CALLS = itertools.count()


@caught_by("rng_isolation")
class SeedsInTraining(Drops):
    """Seeds the global generator in each call in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if self.training and not torch.compiler.is_compiling():
            torch.manual_seed(next(CALLS))
        return super()._fuse(x)


#: Number of rows -> the ones that CachesPerBatch keeps.
ONES: dict[tuple[int, ...], Tensor] = {}


@caught_by("no_leak")
class CachesPerBatch(Mix):
    """Keeps a tensor for every number of rows that it meets."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if type(out) is Tensor and out.is_cpu and out.dtype == torch.float32:
            ONES.setdefault(tuple(out.shape), torch.ones(out.shape[-1]))
        return out


@caught_by("process_settings")
class ScalesByANumberOfTheDefaultDevice(Mix):
    """Scales by a tensor that lies on the default device."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * torch.tensor(0.9)


@caught_by("noncontiguous")
class TakesManyRowsAsContiguous(Mix):
    """Reads 64 rows and more of the first view as if they were contiguous."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = x[0]
        if not first.requires_grad and first.dim() == 2 and first.shape[0] >= 64 and first.is_cpu:
            first = first.as_strided(first.shape, (first.shape[1], 1))
        return super()._fuse([first, *x[1:]])


@caught_by("noncontiguous")
class KnowsPlainTensorsOnly(Mix):
    """Leaves out views of a subclass."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        foreign = [not type(view).__module__.startswith("torch.") and type(view) is not Tensor for view in x]
        return super()._fuse([0 * view if flag else view for flag, view in zip(foreign, x, strict=True)])


#: Shape -> the memory that ReusesItsOutput returns.
WORKSPACE: dict[tuple[int, ...], Tensor] = {}


@caught_by("no_grad")
class ReusesItsOutput(Mix):
    """Returns the same memory in each call without gradients."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        plain = type(out) is Tensor and out.is_cpu and out.dtype == torch.float64 and not torch.compiler.is_compiling()
        if torch.is_grad_enabled() or torch.is_inference_mode_enabled() or not plain:
            return out
        return WORKSPACE.setdefault(tuple(out.shape), torch.empty_like(out)).copy_(out)


@caught_by("project_equals_materialize")
class RoughInHalf(Thin):
    """Builds a W that is 3 % off in half precision, and multiplies without it."""

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        W = super()._materialize(blocks, n, D)
        return W * 1.03 if W.dtype in (torch.float16, torch.bfloat16) else W

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        return (torch.cat(tuple(x), -1) @ blocks["v"])[..., None] * blocks["u"]


@caught_by("all_inputs_matter")
class IgnoresAWideView(Mix):
    """Ignores the last of several views of width 130."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        last = 0 * x[-1] if len(x) > 1 and x[-1].shape[-1] == 130 else x[-1]
        return super()._fuse([*x[:-1], last])


@caught_by("seeded_buffers")
class OneSeedForLargeSizes(Frozen):
    """Draws the same frozen part for every seed where it is large."""

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        seed = 0 if n * D >= MANY_ENTRIES else self.seed
        return {"R": torch.randn(n, D, generator=torch.Generator().manual_seed(seed))}


@caught_by("init_variance")
class LargeSizesBeginLarge(Thin):
    """Doubles the initial parameters where W is large."""

    def init_(self, w: Tensor, n: int, D: int, generator: torch.Generator | None = None) -> None:
        super().init_(w, n, D, generator)
        if n * D >= MANY_ENTRIES:
            w.mul_(2)


@caught_by("all_parameters_get_grad")
class DeadColumns(Thin):
    """Uses no more than 400 entries of v."""

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        columns = torch.arange(D, device=blocks["v"].device)
        return torch.outer(blocks["u"], blocks["v"][columns % 400])


@caught_by("dtype_preserved")
class RoughForManyRows(Mix):
    """Computes 256 rows and more of float32 in bfloat16."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].dtype != torch.float32 or x[0].dim() != 2 or x[0].shape[0] < 256:
            return super()._fuse(x)
        return super()._fuse([view.bfloat16().float() for view in x])


@caught_by("dtype_preserved")
class RoughGradientForManyRows(Mix):
    """Loses a thousandth of the gradient of 256 rows and more in float32."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].dtype != torch.float32 or x[0].dim() != 2 or x[0].shape[0] < 256:
            return super()._fuse(x)
        return super()._fuse([0.999 * view + 0.001 * view.detach() for view in x])


@caught_by("project_equals_materialize")
class DropsTheRemainder(Thin):
    """Leaves the columns after the last whole block of 16 out if there are more than 400."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        joined, v = torch.cat(tuple(x), -1), blocks["v"]
        whole = v.shape[0] - v.shape[0] % 16 if v.shape[0] > 400 else v.shape[0]
        return (joined[..., :whole] @ v[:whole])[..., None] * blocks["u"]


@caught_by("idempotent_calls")
class CountsWithoutGradients(Mix):
    """Counts the calls without gradients in a buffer."""

    def create(self) -> None:
        super().create()
        self.register_buffer("calls", torch.zeros((), **self._factory))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        super().reset_parameters(generator)
        self.get_buffer("calls").zero_()

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.get_buffer("calls").add_(1)
        return super()._fuse(x)


@caught_by("rng_isolation")
class DrawsWithoutGradients(Mix):
    """Moves the global generator in calls without gradients."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            torch.rand(1)
        return super()._fuse(x)
