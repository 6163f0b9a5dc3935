"""The outer product of all views, times a matrix of low rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Fusion, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_size, dense_projection
from torch import Tensor, nn

from fusionkit_bilinear.base import MultiplicativeFusion
from fusionkit_bilinear.functions import product


class LowRankTensorFusion(MultiplicativeFusion):
    """`sum_r w_r prod_i ([1; x_i] F_i^r) + b`, views (..., n_i) -> (..., n).

    F_i^r (n_i + 1, n) is kept as the rows r*n to (r+1)*n of a matrix (rank*n, n_i) and, the row of the one, as that
    matrix's bias; weights w (rank,), b (n,); l = rank*n * sum_i (n_i + 1) + rank + n.  With one view, a linear map.
    Source: Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", 2018, equation 8; w and b
    as in the authors' code.

    Args:
        rank: number of products.
        parameter_fabrication: how the matrices (rank*n, n_i) are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    weights: Tensor
    bias: Tensor

    traits = Traits(batch_independent=True, free_n=True, missing="neutral", memory_factor=10)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        rank: int = 4,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.rank = check_size("rank, the number of products,", rank)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views and three."""
        return [{"dims": [4, 4], "n": 5, "rank": 2}, {"dims": [3, 1, 4], "n": 3}]

    def layers(self) -> Layers:
        """Return the factors."""
        height, made = self.rank * self.calculate_n(), self.parameter_fabrication
        return {"factors": [Layer(height, width, fabrication=made) for width in self.resolve_dims()]}

    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Return w and b."""
        return {"weights": (self.rank,), "bias": (self.calculate_n(),)}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the factors so that the products have power 1, weights of norm 1, and b = 0."""
        factors = self.group("factors")
        self.draw_factors(factors, len(factors), generator, None)
        with torch.no_grad():
            self.bias.zero_()
            self.weights.normal_(generator=generator).div_(self.weights.norm())

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        factors = [factor([view]) for factor, view in zip(self.group("factors"), x, strict=True)]
        terms = product(factors, fresh=True).unflatten(-1, (self.rank, -1))
        out: Tensor = (terms * self.weights.unsqueeze(-1)).sum(-2) + self.bias
        return out

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views: its factors are dense, and the first has the ones of the other views."""
        kept, factors = self.indices_to_fold(views), self.group("factors")
        made = [self.dense(factors[i]) for i in kept]
        left = [self.dense(factor)[1] for i, factor in enumerate(factors) if i not in kept]
        for bias in left:
            made[0] = (made[0][0] * bias.unsqueeze(-1), made[0][1] * bias)  # type: ignore[union-attr, operator]
        parts = {"factors": nn.ModuleList(dense_projection(*one) for one in made)}
        return self.restricted(views, parts=parts, parameter_fabrication=None)
