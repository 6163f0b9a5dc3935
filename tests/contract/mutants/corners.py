"""Wrong for a few sizes, dtypes or modes only."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.contract.mutants.right import Mix, Thin, Total
from tests.contract.mutants.table import caught_by


@caught_by("gradcheck")
class LosesAGradientOfTwo(Mix):
    """Loses a part of a gradient where there are two views."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([x[0], 0.5 * (x[1] + x[1].detach())] if len(x) == 2 else x)


@caught_by("gradcheck")
class LosesAGradientOfManyRows(Mix):
    """Loses the gradient of the last view where there are more than two rows."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([*x[:-1], x[-1].detach()] if x[0].dim() > 1 and len(x[0]) > 2 else x)


@caught_by("l_property")
class WrongFromNineViews(Mix):
    """Miscounts more views than any example has."""

    def calculate_l(self) -> int:
        return super().calculate_l() + (len(self.resolve_dims()) > 8)


@caught_by("all_parameters_get_grad")
class DropsAnOddColumn(Mix):
    """Drops the last column of an odd number above eight."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        n = out.shape[-1]
        return nn.functional.pad(out[..., :-1], (0, 1)) if n > 8 and n % 2 else out


@caught_by("rng_isolation")
class DrawsForBatchesOfMatrices(Mix):
    """Draws a number that it does not use, where there are three leading dimensions."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].dim() > 3:
            torch.rand(1)
        return super()._fuse(x)


@caught_by("external_w")
class CallsTwiceWithoutW(Mix):
    """Calls itself twice unless w is given."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if "w" not in kwargs:
            super().__call__(*args, **kwargs)
        return super().__call__(*args, **kwargs)


@caught_by("external_w")
class LosesAGradientOfWInTraining(Mix):
    """Loses a part of the gradient of a given w in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        weight: Tensor = self.weight
        if self.training and not isinstance(weight, nn.Parameter):
            weight = 0.5 * (weight + weight.detach())
        return torch.stack([view * row for view, row in zip(x, weight, strict=True)]).sum(0)


@caught_by("noncontiguous")
class AssumesStridesOfTheLast(Mix):
    """Reads the memory of the last view as if it were contiguous, where the others are."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        *others, last = x
        if all(view.is_contiguous() for view in others) and not last.is_contiguous():
            last = last.as_strided(last.shape, last.new_empty(last.shape).stride())
        return super()._fuse([*others, last])


@caught_by("batch_independence")
class LosesRowsOfALargeBatch(Mix):
    """Gives zero for all rows beyond 4096."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if out.dim() == 2 and out.shape[0] > 4096:
            out = torch.cat([out[:4096], torch.zeros_like(out[4096:])])
        return out


@caught_by("parameters_stable")
class ReplacesParameters(Mix):
    """Puts other objects in the place of its parameters, which an optimizer does not know."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        if isinstance(self.weight, nn.Parameter):
            self.weight = nn.Parameter(self.weight.detach().clone())
        super().reset_parameters(generator)


@caught_by("parameters_stable")
class ClearsGradients(Mix):
    """Clears the gradients at each call in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if self.training:
            self.weight.grad = None
        return super()._fuse(x)


@caught_by("parameters_stable")
class LeavesTraining(Mix):
    """Goes to evaluation mode at the first call."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        self.training = False
        return super()._fuse(x)


@caught_by("deterministic")
class NoisyInSingle(Mix):
    """Adds a noise of rounding's size in float32, from a generator of its own."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        noise = torch.rand(out.shape, generator=torch.Generator().manual_seed(time.perf_counter_ns()))
        return out * (1 + 1e-6 * noise.to(out)) if out.dtype == torch.float32 else out


@caught_by("no_input_mutation")
class WritesWithoutGraph(Mix):
    """Writes to a view where no gradient is needed."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if not torch.is_grad_enabled() and x[0].dtype == torch.float32:
            x[0].zero_()
        return out


@caught_by("seeding")
class BornAlike(Mix):
    """Starts with the same values whenever no generator is given."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().reset_parameters(generator)


@caught_by("empty_batch")
class RefusesEmptyCubes(Mix):
    """Raises for an empty batch of three leading dimensions."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].dim() > 3 and not x[0].numel():
            raise RuntimeError("There is nothing in it.")
        return super()._fuse(x)


@caught_by("permutation")
class InvariantForThree(Total):
    """Declares an invariance that more than three views break."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([2 * x[0], *x[1:]] if len(x) > 3 else x)


@caught_by("linear")
class Saturates(Mix):
    """Declares itself linear, and clips large values."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([view.clamp(-50, 50) for view in x])


@caught_by("idempotent_calls")
class SetsTheEnvironmentInTraining(Mix):
    """Sets a variable of the environment in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if self.training:
            os.environ["FUSIONKIT_TEST_TRACE"] = str(int(os.environ.get("FUSIONKIT_TEST_TRACE", "0")) + 1)
        return super()._fuse(x)


@caught_by("project_equals_materialize")
class ForgetsTheFourthView(Thin):
    """Projects the first three views only."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        views = [*x[:3], *(torch.zeros_like(view) for view in x[3:])]
        return (torch.cat(views, -1) @ blocks["v"])[..., None] * blocks["u"]


@caught_by("project_equals_materialize")
class LosesAGradientOfWideViews(Thin):
    """Loses the gradient of a block by more than thirty columns."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        v = blocks["v"].detach() if len(blocks["v"]) > 30 else blocks["v"]
        return (torch.cat(tuple(x), -1) @ v)[..., None] * blocks["u"]


@caught_by("init_variance")
class WideForAPrime(Thin):
    """Starts three times too wide where D is a prime number above twenty."""

    def init_(self, w: Tensor, n: int, D: int, generator: torch.Generator | None = None) -> None:
        super().init_(w, n, D, generator)
        if D > 20 and all(D % q for q in range(2, D)):
            with torch.no_grad():
                w.mul_(3**0.5)
