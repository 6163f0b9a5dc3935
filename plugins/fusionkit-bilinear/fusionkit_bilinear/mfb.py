"""Products of projections, summed over factors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_flag, check_size
from torch import Tensor

from fusionkit_bilinear.base import MultiplicativeFusion, output_gain
from fusionkit_bilinear.functions import activation, leveled, power_normalized, present, product


class MFB(MultiplicativeFusion):
    """`g(P_o z + b_o)`, `z = sum_f prod_i f(P_i^f x_i + b_i^f)`.

    Views (..., n_i) -> (..., n); the sum has ``factor`` products.  P_i (factor*mm_dim, n_i), whose row f*mm_dim + o
    gives factor f of entry o; P_o (n, mm_dim); b_i and b_o are biases; l = sum_i (n_i + 1)*factor*mm_dim + (mm_dim +
    1)*n.  With one view, a network with one hidden layer.  Source: Yu et al., "Multi-modal Factorized Bilinear Pooling
    with Co-attention Learning", 2017, equation 3, and the normalization after it.

    Args:
        mm_dim: width of z.
        factor: number of products that are summed per entry of z.
        activ_input, activ_output: f and g, by name; None: the identity.
        normalize: power and l2 normalization of z.
        dropout_input, dropout_pre_norm, dropout_output: dropout rates after f, of the products, and of the result.
        parameter_fabrication: how the P_i are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    per_view = ("inputs",)
    traits = Traits(batch_independent=True, free_n=True, missing="skip")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        mm_dim: int = 1200,
        factor: int = 2,
        activ_input: str | None = None,
        activ_output: str | None = None,
        normalize: bool = True,
        dropout_input: float = 0.0,
        dropout_pre_norm: float = 0.0,
        dropout_output: float = 0.0,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.mm_dim = check_size("mm_dim, the width of the pooled product,", mm_dim)
        self.factor = check_size("factor, the number of products in a sum,", factor)
        self.keep_activations(activ_input=activ_input, activ_output=activ_output)
        self.normalize = check_flag("normalize", normalize)
        self.keep_rates(dropout_input=dropout_input, dropout_pre_norm=dropout_pre_norm, dropout_output=dropout_output)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the defaults, activations in place of the normalization, and sums of three products of three views."""
        return [
            {"dims": [4, 4], "n": 4, "mm_dim": 3},
            {"dims": [8, 6], "n": 3, "mm_dim": 8, "activ_input": "relu", "activ_output": "relu", "normalize": False},
            {"dims": [3, 4, 3], "n": 4, "mm_dim": 3, "factor": 3},
        ]

    def layers(self) -> Layers:
        """Return P_i and P_o."""
        height, made = self.factor * self.mm_dim, self.parameter_fabrication
        return {
            "inputs": [Layer(height, width, fabrication=made) for width in self.resolve_dims()],
            "output": [Layer(self.calculate_n(), self.mm_dim)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the output has about the power of the views."""
        inputs, terms = self.group("inputs"), self.factor
        k = len(inputs)
        mean, square = self.draw_factors(inputs, k, generator, self.activ_input)
        # A sum of `factor` products, which correlate through their means.
        power = 1 / self.mm_dim if self.normalize else terms * square**k + terms * (terms - 1) * mean ** (2 * k)
        self.group("output")[0].reset_parameters(generator, gain=output_gain(self.activ_output) * power**-0.5)

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        factors = [self.drop(factor, self.dropout_input) for factor in self.activated("inputs", x, self.activ_input)]
        factors = present(factors, mask)
        if self.normalize:
            factors, _ = leveled(factors, factors)
        h = product(factors, fresh=True)
        h = self.drop(h, self.dropout_pre_norm)
        z = h.unflatten(-1, (self.factor, self.mm_dim)).sum(-2)
        if self.normalize:
            z = power_normalized(z).to(x[0].dtype)
        out = activation(self.activ_output)(self.group("output")[0]([z]))
        return self.drop(out, self.dropout_output)

    _fuse_masked = _fuse
