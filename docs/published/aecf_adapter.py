"""The attention pool of aecf, with the query that its own factory makes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from adapter import Published
from aecf import create_fusion_pool
from torch import Tensor, nn

import fusionkit


class _Pool(nn.Module):
    """The query and the pool that ``create_fusion_pool`` returns, called as aecf's README calls them."""

    def __init__(self, width: int, views: int) -> None:
        super().__init__()
        self.query, self.pool = create_fusion_pool(embed_dim=width, num_modalities=views)

    def forward(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        modalities = torch.stack(x, 1)
        query = self.query.expand(modalities.shape[0], -1, -1)
        absent = None if mask is None else ~mask
        return self.pool(query, modalities, key_padding_mask=absent).squeeze(1)


class AttentionPool(Published):
    """`pool(query, views)`, views of one width n."""

    traits = fusionkit.Traits(
        permutation_invariant=True, batch_independent=True, stochastic=True, train_eval_differ=True, missing="skip"
    )
    #: A pool that reads absent views would show it.
    fill = 7.0

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the common width."""
        return self.resolve_equal_dims(dims)

    def make(self, dims: list[int]) -> nn.Module:
        """Return the query and the pool."""
        return _Pool(self.calculate_n(dims), len(dims))

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the pool; its ``key_padding_mask`` is the mask."""
        return self.module(x, mask)
