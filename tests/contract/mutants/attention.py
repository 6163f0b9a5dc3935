"""Mistakes that published attention and gates have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.contract.mutants.right import Mix
from tests.contract.mutants.table import caught_by


@caught_by("all_parameters_get_grad")
class OneKeyPerQuery(Mix):
    """Lets every view attend to the next one: a softmax over one key is 1, so queries and keys have no gradient."""

    def create(self) -> None:
        width = self.calculate_n()
        self.query, self.key, self.value = (nn.Parameter(torch.empty(width, width, **self._factory)) for _ in range(3))

    def calculate_l(self) -> int:
        return 3 * self.calculate_n() ** 2

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = torch.zeros_like(x[0])
        for i, view in enumerate(x):
            other = x[(i + 1) % len(x)]
            scores = (F.linear(view, self.query) * F.linear(other, self.key)).sum(-1, keepdim=True)
            out = out + scores.softmax(-1) * F.linear(other, self.value)
        return out


@caught_by("batch_independence")
class AttendsAcrossTheBatch(Mix):
    """Hands (batch, d) to attention, which takes the rows for the tokens of one sequence."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        rows = out.reshape(-1, out.shape[-1])
        return F.scaled_dot_product_attention(rows, rows, rows).view(out.shape)


@caught_by("parameters_stable")
class DrawsInForward(Mix):
    """Creates a layer at every call."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        width = out.shape[-1]
        self.layer = nn.Linear(width, width, device=out.device, dtype=out.dtype)
        return self.layer(out)  # type: ignore[no-any-return]
