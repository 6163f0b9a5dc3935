"""Fail under torch's compiler and exporters, or take too much time or memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusionkit.fusion import Traits
from tests.contract.mutants.right import Mix, Thin
from tests.contract.mutants.table import caught_by


@caught_by("fake_tensor")
class ReadsAValue(Mix):
    """Reads a value of its output."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out * (1 + 0 * out.detach().sum().item())


@caught_by("compile_fullgraph")
class BreaksTheGraph(Mix):
    """Breaks the graph in two."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        torch._dynamo.graph_break()
        return super()._fuse(x)


@caught_by("compile_dynamic")
class UnrollsRows(Mix):
    """Loops over the rows."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return torch.stack([out[i] for i in range(out.shape[0])]) if out.dim() > 1 and out.shape[0] else out


@caught_by("export")
class SpecialBatch(Mix):
    """Treats a batch of four rows in another way."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.clone() if out.shape[0] == 4 else out


@caught_by("onnx")
class UnknownToOnnx(Mix):
    """Uses a function that ONNX does not have."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + 0 * torch.lgamma(x[0].abs() + 1)


@caught_by("memory")
class CopiesTheViews(Mix):
    """Stacks forty copies of the views."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([Mix._fuse(self, x)] * 40).mean(0)


@caught_by("memory")
class PromisesTooLittle(Mix):
    """Promises a peak that it exceeds."""

    traits = Traits(linear=True, batch_independent=True, memory_factor=1)


@caught_by("memory")
class PromisesNothing(Mix):
    """Declares a peak without a bound."""

    traits = Traits(linear=True, batch_independent=True, memory_factor=float("inf"))


@caught_by("memory")
class BuildsW(Thin):
    """Has a project that multiplies by W after all."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        return torch.cat(tuple(x), -1) @ torch.outer(blocks["v"], blocks["u"])


@caught_by("no_leak")
class KeepsOutputs(Mix):
    """Keeps every output."""

    def create(self) -> None:
        super().create()
        self.outputs: list[Tensor] = []

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        self.outputs.append(super()._fuse(x))
        return self.outputs[-1]


@caught_by("scaling")
class PassesPerRow(Mix):
    """Passes over all rows again for every 64 of them."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        for _ in range(x[0].shape[0] // 64 if x[0].dim() > 1 else 0):
            out = out + 0 * super()._fuse(x)
        return out


@caught_by("scaling")
class ComparesViews(Mix):
    """Passes over all pairs of views."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + 0 * torch.stack([one * other for one in x for other in x]).sum(0)


@caught_by("thread_safety")
class RemembersTheViews(Mix):
    """Keeps the views in an attribute during the call."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        holder = self.__dict__.setdefault("_holder", {})
        holder["x"] = x
        time.sleep(1e-3)
        return super()._fuse(holder["x"])


#: Set by the tests; a fresh process does not have it.
RUNTIME = {"scale": 1.0}


@caught_by("spawn_safety")
class SetUpAtRunTime(Mix):
    """Depends on a global that the program sets."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * RUNTIME["scale"]
