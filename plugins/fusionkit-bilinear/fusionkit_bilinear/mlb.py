"""The product of projections, projected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_flag, check_size
from torch import Tensor

from fusionkit_bilinear.base import MultiplicativeFusion, output_gain
from fusionkit_bilinear.functions import activation, leveled, power_normalized, present, product


class MLB(MultiplicativeFusion):
    """`g(P_o (f(P_1 x_1 + b_1) ∘ ... ∘ f(P_k x_k + b_k)) + b_o)`, views (..., n_i) -> (..., n).

    P_i (mm_dim, n_i), b_i (mm_dim,), P_o (n, mm_dim), b_o (n,); l = sum_i (n_i + 1)*mm_dim + (mm_dim + 1)*n.  One view
    is a network with one hidden layer.  Source: Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", 2017,
    equation 3 with the biases of section 3.1 and the activations of section 3.2.

    Args:
        mm_dim: width of the product.
        activ_input, activ_output: f and g, by name; None: the identity.
        normalize: power and l2 normalization of the product.
        dropout_input, dropout_pre_lin, dropout_output: dropout rates after f, before P_o, and of the result.
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
        activ_input: str | None = "tanh",
        activ_output: str | None = None,
        normalize: bool = False,
        dropout_input: float = 0.0,
        dropout_pre_lin: float = 0.0,
        dropout_output: float = 0.0,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.mm_dim = check_size("mm_dim, the width of the product,", mm_dim)
        self.keep_activations(activ_input=activ_input, activ_output=activ_output)
        self.normalize = check_flag("normalize", normalize)
        self.keep_rates(dropout_input=dropout_input, dropout_pre_lin=dropout_pre_lin, dropout_output=dropout_output)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the defaults, other activations, and a normalized product of three views."""
        return [
            {"dims": [4, 4], "n": 5, "mm_dim": 6},
            {"dims": [8, 6], "n": 3, "mm_dim": 8, "activ_input": "relu", "activ_output": "gelu"},
            {"dims": [3, 4, 3], "n": 4, "mm_dim": 5, "activ_input": None, "normalize": True},
        ]

    def layers(self) -> Layers:
        """Return P_i and P_o."""
        mm_dim, made = self.mm_dim, self.parameter_fabrication
        return {
            "inputs": [Layer(mm_dim, width, fabrication=made) for width in self.resolve_dims()],
            "output": [Layer(self.calculate_n(), mm_dim)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the output has about the power of the views."""
        inputs = self.group("inputs")
        _, square = self.draw_factors(inputs, len(inputs), generator, self.activ_input)
        power = 1 / self.mm_dim if self.normalize else square ** len(inputs)
        self.group("output")[0].reset_parameters(generator, gain=output_gain(self.activ_output) * power**-0.5)

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        factors = [self.drop(factor, self.dropout_input) for factor in self.activated("inputs", x, self.activ_input)]
        factors = present(factors, mask)
        if self.normalize:
            factors, _ = leveled(factors, factors)
        z = product(factors, fresh=True)
        if self.normalize:
            z = power_normalized(z).to(x[0].dtype)
        z = self.drop(z, self.dropout_pre_lin)
        out = activation(self.activ_output)(self.group("output")[0]([z]))
        return self.drop(out, self.dropout_output)

    _fuse_masked = _fuse
