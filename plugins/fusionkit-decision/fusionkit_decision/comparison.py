"""Differences, products and cosines of all pairs of views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import torch
from fusionkit import DimsError
from fusionkit.fusion import ElementwiseFusion, Traits
from torch import Tensor

from fusionkit_decision.base import wide


class Comparison(ElementwiseFusion):
    """`[abs(x_i - x_j); x_i ∘ x_j; x_i . x_j; cos(x_i, x_j)]` for i < j, views (..., n_i) each -> (..., k(k-1)(n_i+1)).

    Pairs in the order (1, 2), (1, 3), ..., (k-1, k).  cos is 0 where a view is 0.  l = 0.  One view has no pair and is
    refused.  A pair with an absent view gives 0, and so does a row without any view.  Source: Tai et al., "Improved
    Semantic Representations From Tree-Structured Long Short-Term Memory Networks", 2015, equation 15, which has the
    difference and the product.

    Args:
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.

    Raises:
        DimsError: fewer than two views.
    """

    traits = Traits(batch_independent=True, order_in_k=2, missing="neutral")

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views, and more."""
        return [{"dims": [4, 4]}, {"dims": [3, 3, 3]}]

    @classmethod
    def absent_view(cls) -> str:
        """Return in words what an absent view means; zeros in its place would leave abs(x_i)."""
        return "its pairs are 0 (neutral); a row without any view gives 0"

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return k(k-1)(n_i+1), the width of all pairs; one view is a ``DimsError``."""
        width, k = self.resolve_equal_dims(dims), len(self.resolve_dims(dims))
        if k < 2:
            raise DimsError(f"{self.name} should get at least 2 views, to compare them; found {k}.")
        return k * (k - 1) * (width + 1)

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        views = wide(x)
        # Divided by their greatest entries the views have dot products and norms that neither overflow nor vanish.
        scales = [view.detach().abs().amax(-1, keepdim=True) for view in views]
        units = [view / scale.where(scale != 0, 1.0) for view, scale in zip(views, scales, strict=True)]
        squares = [unit.square().sum(-1, keepdim=True) for unit in units]
        inverse = [torch.where(square != 0, square.where(square != 0, 1.0).rsqrt(), 0.0) for square in squares]
        pieces: list[Tensor] = []
        for i, j in combinations(range(len(x)), 2):
            dot = (units[i] * units[j]).sum(-1, keepdim=True)
            pair = [
                (views[i] - views[j]).abs(),
                views[i] * views[j],
                dot * scales[i] * scales[j],
                dot * inverse[i] * inverse[j],
            ]
            if mask is not None:
                both = (mask[..., i] & mask[..., j]).unsqueeze(-1)
                pair = [torch.where(both, piece, 0.0) for piece in pair]
            pieces += pair
        return torch.cat(pieces, -1).to(x[0].dtype)

    _fuse_masked = _fuse

    def reference(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Compare stacked float64 copies."""
        pairs = []
        for i, j in combinations(range(len(x)), 2):
            one, other = x[i].double(), x[j].double()
            dot = (one * other).sum(-1, keepdim=True)
            norms = one.norm(dim=-1, keepdim=True) * other.norm(dim=-1, keepdim=True)
            cos = torch.where(norms > 0, dot / norms.where(norms > 0, 1.0), 0.0)
            pair = torch.cat([(one - other).abs(), one * other, dot, cos], -1)
            pairs.append(pair if mask is None else pair * (mask[..., i] & mask[..., j]).unsqueeze(-1))
        return torch.cat(pairs, -1)
