"""The product of projections plus the sum of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Fusion, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_flag
from torch import Tensor, nn

from fusionkit_bilinear.base import MultiplicativeFusion
from fusionkit_bilinear.functions import present, product


class HadamardProjection(MultiplicativeFusion):
    """`prod_i (P_i x_i) + sum_i U_i x_i`, views (..., n_i) -> (..., n); with ``bias`` `P_i x_i + b_i` and `+ b_0`.

    P_i and U_i (n, n_i) are the upper and the lower half of one matrix (2*n, n_i); l = 2*n*D, plus (k + 1)*n with
    ``bias`` (k + 1, n), b_0 first.  With one view, a linear map.  Source: Kim et al., "Hadamard Product for Low-rank
    Bilinear Pooling", 2017, section 3.1, with free matrices for its linear terms and no projection after the product.

    Args:
        bias: whether there are biases.  Without them a product has no part of lower order, and a fabrication that
            leaves rows of a P_i empty silences those entries of the product.
        parameter_fabrication: how the matrices [P_i; U_i] are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    biases: Tensor

    per_view = ("inputs",)
    traits = Traits(batch_independent=True, free_n=True, missing="skip")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        bias: bool = False,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.bias = check_flag("bias", bias)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views with biases, and two and three without."""
        return [{"dims": [4, 4], "n": 5, "bias": True}, {"dims": [4, 4], "n": 4}, {"dims": [3, 1, 4], "n": 3}]

    def layers(self) -> Layers:
        """Return [P_i; U_i] of each view."""
        height, made = 2 * self.calculate_n(), self.parameter_fabrication
        return {"inputs": [Layer(height, width, False, made) for width in self.resolve_dims()]}

    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Return b_0 to b_k, in one tensor."""
        return {"biases": (len(self.resolve_dims()) + 1, self.calculate_n())} if self.bias else {}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the sum, and with biases also the product, has half of the power of the views."""
        inputs = self.group("inputs")
        k = len(inputs)
        spread = 0.5 / k if self.bias else _share(k)
        for project in inputs:
            project.reset_parameters(generator, gain=spread**0.5)
        if self.bias:
            offset = (0.5 ** (1 / k) - spread) ** 0.5
            with torch.no_grad():
                self.biases.normal_(generator=generator).sign_().mul_(offset)
                self.biases[0] = 0

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        parts = [project([view]).chunk(2, -1) for project, view in zip(self.group("inputs"), x, strict=True)]
        factors = [factor for factor, _ in parts]
        if self.bias:
            first, *others = self.biases.unbind(0)
            factors = [factor + bias for factor, bias in zip(factors, others, strict=True)]
        out = product(present(factors, mask))
        for _, term in parts:
            out = out + term
        return out + first if self.bias else out

    _fuse_masked = _fuse

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views, with copies of what belongs to them."""
        if not self.bias or not self.require_parameters:
            return self.restricted(views)
        rows = [0, *(i + 1 for i in self.check_views(views))]
        return self.restricted(views, parts={"biases": nn.Parameter(self.biases.detach()[rows].clone())})


def _share(k: int) -> float:
    """Return the power s of each factor for which that of product and sum, s^k + k*s, is 1."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle**k + k * middle < 1 else (low, middle)
    return low
