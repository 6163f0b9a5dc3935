"""A cascade of factorized products of rising order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_flag, check_size
from torch import Tensor

from fusionkit_bilinear.base import MultiplicativeFusion, output_gain
from fusionkit_bilinear.functions import activation, leveled, power_normalized, present, product


class MFH(MultiplicativeFusion):
    """`g(P_o [z_1; ...; z_p] + b_o)`, `z_j = sum_f h_j^f`, `h_j = h_{j-1} ∘ prod_i f(P_i^j x_i + b_i^j)`, `h_0 = 1`.

    Views (..., n_i) -> (..., n).  P_i^j (factor*mm_dim, n_i), whose row f*mm_dim + o gives factor f of entry o; P_o (n,
    p*mm_dim), p = order; b_i^j and b_o are biases; l = p * sum_i (n_i + 1)*factor*mm_dim + (p*mm_dim + 1)*n.  One view
    gives powers of it.  Source: Yu et al., "Beyond Bilinear: Generalized Multimodal Factorized High-order Pooling",
    2018, section "From Bilinear Pooling to Generalized High-order Pooling": the recursion of z_exp^i and their
    concatenation MFH^p.

    Args:
        mm_dim: width of each z_j.
        factor: number of products that are summed per entry of z.
        order: p, the number of z_j.
        activ_input, activ_output: f and g, by name; None: the identity.
        normalize: power and l2 normalization of each z_j.
        dropout_input, dropout_pre_lin, dropout_output: dropout rates after f, of each h_j, and of the result.
        parameter_fabrication: how the P_i^j are made; all j of a view are one matrix.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    per_view = ("inputs",)
    traits = Traits(batch_independent=True, free_n=True, missing="skip", memory_factor=18)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        mm_dim: int = 1200,
        factor: int = 2,
        order: int = 2,
        activ_input: str | None = None,
        activ_output: str | None = None,
        normalize: bool = True,
        dropout_input: float = 0.0,
        dropout_pre_lin: float = 0.0,
        dropout_output: float = 0.0,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.mm_dim = check_size("mm_dim, the width of a pooled product,", mm_dim)
        self.factor = check_size("factor, the number of products in a sum,", factor)
        self.order = check_size("order, the number of pooled products,", order)
        self.keep_activations(activ_input=activ_input, activ_output=activ_output)
        self.normalize = check_flag("normalize", normalize)
        self.keep_rates(dropout_input=dropout_input, dropout_pre_lin=dropout_pre_lin, dropout_output=dropout_output)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the defaults, activations, and three orders of three views, not normalized."""
        return [
            {"dims": [4, 4], "n": 3, "mm_dim": 3},
            {"dims": [5, 4], "n": 3, "mm_dim": 4, "activ_input": "gelu", "activ_output": "silu"},
            {"dims": [3, 4, 3], "n": 3, "mm_dim": 3, "order": 3, "factor": 3, "normalize": False},
        ]

    def layers(self) -> Layers:
        """Return the P_i^1 to P_i^p of each view in one matrix, and P_o."""
        height = self.order * self.factor * self.mm_dim
        return {
            "inputs": [Layer(height, width, fabrication=self.parameter_fabrication) for width in self.resolve_dims()],
            "output": [Layer(self.calculate_n(), self.order * self.mm_dim)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the output has about the power of the views."""
        inputs, p, terms = self.group("inputs"), self.order, self.factor
        k = len(inputs)
        mean, square = self.draw_factors(inputs, k * p, generator, self.activ_input)
        # A sum of `factor` products of k*j factors, which correlate through their means.
        powers = [terms * square ** (k * j) + terms * (terms - 1) * mean ** (2 * k * j) for j in range(1, p + 1)]
        power = 1 / self.mm_dim if self.normalize else sum(powers) / p
        self.group("output")[0].reset_parameters(generator, gain=output_gain(self.activ_output) * power**-0.5)

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        shape = (self.order, self.factor, self.mm_dim)
        factors = [self.drop(factor, self.dropout_input) for factor in self.activated("inputs", x, self.activ_input)]
        factors = present(factors, mask)
        if self.normalize:
            factors, _ = leveled(factors, factors)
        skip: Tensor | None = None
        pooled = []
        for h in product(factors, fresh=True).unflatten(-1, shape).unbind(-3):
            skip = self.drop(h if skip is None else h * skip, self.dropout_pre_lin)
            z = skip.sum(-2)
            pooled.append(power_normalized(z).to(x[0].dtype) if self.normalize else z)
        out = activation(self.activ_output)(self.group("output")[0]([torch.cat(pooled, -1)]))
        return self.drop(out, self.dropout_output)

    _fuse_masked = _fuse
