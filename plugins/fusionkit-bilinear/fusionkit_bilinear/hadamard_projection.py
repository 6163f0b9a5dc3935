"""The product of projections plus the sum of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from fusionkit import Traits
from torch import Tensor

from fusionkit_bilinear.base import Layer, Layers, MultiplicativeFusion
from fusionkit_bilinear.functions import product


class HadamardProjection(MultiplicativeFusion):
    """`prod_i (P_i x_i) + sum_i U_i x_i`, views (..., n_i) -> (..., n); with ``bias`` `P_i x_i + p_i` and `+ u`.

    P_i and U_i (n, n_i); l = 2*n*D, plus (k + 1)*n with ``bias``.  One view is a linear map.  Source: the full model of
    Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", 2017, section 3.1, with free matrices for its
    linear terms and no projection behind the product.

    Args:
        bias: whether there are p_i (n,) and u (n,).  Without them a product has no part of lower order, and a
            fabrication that leaves rows of a P_i empty silences those entries of the product.
        parameter_fabrication: how the P_i, and [U_1, ..., U_k], are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(batch_independent=True, free_n=True, memory_factor=16)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        name: str | None = None,
        require_parameters: bool = True,
        *,
        bias: bool = False,
        parameter_fabrication: Any = None,
        preprocess: Any = None,
        postprocess: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            n,
            dims,
            name,
            require_parameters,
            preprocess=preprocess,
            postprocess=postprocess,
            device=device,
            dtype=dtype,
        )
        self.bias = bool(bias)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Yield two views with biases, and two and three without."""
        yield {"dims": [4, 4], "n": 5, "bias": True}
        yield {"dims": [4, 4], "n": 4}
        yield {"dims": [3, 1, 4], "n": 3}

    def layers(self) -> Layers:
        """Return the P_i, and all U_i in one matrix."""
        n, dims, made = self.calculate_n(), self.resolve_dims(), self.parameter_fabrication
        return {
            "factors": [Layer(n, width, self.bias, made) for width in dims],
            "sum": [Layer(n, dims, self.bias, made)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the product and the sum with half of the power of the views each."""
        factors, (total,) = self.group("factors"), self.group("sum")
        half = 0.5 ** (0.5 / len(factors))
        if self.bias:
            self.draw_factors(factors, len(factors), generator, None, half)
        else:
            for factor in factors:
                factor.reset_parameters(generator, gain=half)
        total.reset_parameters(generator, gain=0.5**0.5)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        factors, (total,) = self.group("factors"), self.group("sum")
        out: Tensor = product([factor([view]) for factor, view in zip(factors, x, strict=True)]) + total(x)
        return out
