"""Fabrications that are wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tests.contract.mutants.right import Thin
from tests.contract.mutants.table import caught_by


@caught_by("project_equals_materialize")
class ForgetsAView(Thin):
    """Leaves out the last column in project."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        joined = torch.cat(tuple(x), -1)
        return (joined[..., :-1] @ blocks["v"][:-1])[..., None] * blocks["u"]


@caught_by("project_equals_materialize")
class TransposesASquare(Thin):
    """Multiplies by the transpose where W is square."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        u, v = blocks["u"], blocks["v"]
        if len(v) == n:
            u, v = v, u
        return (torch.cat(tuple(x), -1) @ v)[..., None] * u


@caught_by("project_equals_materialize")
class LosesLeadingDims(Thin):
    """Projects a batch of matrices by twice W."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        out = (torch.cat(tuple(x), -1) @ blocks["v"])[..., None] * blocks["u"]
        return 2 * out if out.dim() > 2 else out


@caught_by("project_equals_materialize")
class ReadsASingleViewAsItLies(Thin):
    """Reads the memory of a single view as if it were contiguous."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        rows = x[0] if len(x) == 1 else torch.cat(tuple(x), -1)
        if rows.dim() == 2 and rows.stride(0) == 1 and rows.device.type == "cpu":
            rows = torch.as_strided(rows, rows.shape, (rows.shape[1], 1))
        return (rows @ blocks["v"])[..., None] * blocks["u"]


@caught_by("structure")
class Unreshaped(Thin):
    """Says u v^T and computes the outer product in the other order, reshaped."""

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return torch.outer(blocks["v"], blocks["u"]).reshape(n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        blocks = self.split(w, n, D)
        return torch.tensor(
            [[float(blocks["u"][i] * blocks["v"][j]) for j in range(D)] for i in range(n)], dtype=torch.float64
        )


@caught_by("seeded_buffers")
class DrawsGlobally(Thin):
    """Draws its frozen part from the global generator."""

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"A": (n, D)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        return {"A": torch.randn(n, D)}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return super()._materialize(blocks, n, D) * self.frozen(n, D, blocks["u"])["A"]


@caught_by("spawn_safety")
class DrawsByProcess(Thin):
    """Draws its frozen part from a seed that every process has another of."""

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"A": (n, D)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        return {"A": torch.randn(n, D, generator=torch.Generator().manual_seed(os.getpid()))}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return super()._materialize(blocks, n, D) * self.frozen(n, D, blocks["u"])["A"]


@caught_by("init_variance")
class FlatFan(Thin):
    """Starts with unit variance, whatever the size of W."""

    def init_(self, w: Tensor, n: int, D: int, generator: torch.Generator | None = None) -> None:
        with torch.no_grad():
            w.normal_(generator=generator)
