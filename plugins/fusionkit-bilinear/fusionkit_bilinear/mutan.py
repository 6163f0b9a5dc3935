"""A core tensor of low rank between projections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Projection, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_flag, check_size
from torch import Tensor

from fusionkit_bilinear.base import MultiplicativeFusion
from fusionkit_bilinear.functions import Affine, pooled, pooled_products, power_normalized

#: While compiling a batch counts as having this many rows.
NOMINAL_ROWS = 1024


class Mutan(MultiplicativeFusion):
    """`P_o (sum_r prod_i (M_i^r y_i + c_i^r)) + b_o`, `y_i = P_i x_i + b_i`; views (..., n_i) -> (..., n).

    P_i (mm_dim, n_i), M_i (rank*mm_dim, mm_dim) with the M_i^r below each other, r = 1, ..., rank, P_o (n, mm_dim);
    c_i, b_i and b_o are biases; l = sum_i [(n_i + 1)*mm_dim + (mm_dim + 1)*rank*mm_dim] + (mm_dim + 1)*n.  With one
    view, a linear map.  Source: Ben-younes et al., "MUTAN: Multimodal Tucker Fusion for Visual Question Answering",
    2017, section 3.3: `z = sum_r z_r` for a core with slices of low rank.

    Args:
        mm_dim: width of the y_i and of the sum.
        rank: number of products.
        normalize: power and l2 normalization of the sum.
        dropout_input, dropout_pre_lin, dropout_output: dropout rates of the y_i, of the sum, and of the result.
        parameter_fabrication: how the P_i are made.
        core_fabrication: how the M_i are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    per_view = ("inputs", "merges")
    traits = Traits(batch_independent=True, free_n=True, missing="skip", memory_factor=10)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        mm_dim: int = 1600,
        rank: int = 15,
        normalize: bool = False,
        dropout_input: float = 0.0,
        dropout_pre_lin: float = 0.0,
        dropout_output: float = 0.0,
        parameter_fabrication: Any = None,
        core_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.mm_dim = check_size("mm_dim, the width of the projected views,", mm_dim)
        self.rank = check_size("rank, the number of products,", rank)
        self.normalize = check_flag("normalize", normalize)
        self.keep_rates(dropout_input=dropout_input, dropout_pre_lin=dropout_pre_lin, dropout_output=dropout_output)
        self.parameter_fabrication = parameter_fabrication
        self.core_fabrication = core_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views, three normalized ones, and factors of low rank."""
        return [
            {"dims": [4, 4], "n": 5, "mm_dim": 4, "rank": 2},
            {"dims": [3, 4, 3], "n": 4, "mm_dim": 4, "rank": 3, "normalize": True},
            {"dims": [4, 5], "n": 3, "mm_dim": 4, "rank": 2, "core_fabrication": {"name": "lowrank", "r": 2}},
        ]

    def layers(self) -> Layers:
        """Return P_i, M_i and P_o."""
        mm_dim, dims = self.mm_dim, self.resolve_dims()
        return {
            "inputs": [Layer(mm_dim, width, fabrication=self.parameter_fabrication) for width in dims],
            "merges": [Layer(self.rank * mm_dim, mm_dim, fabrication=self.core_fabrication) for _ in dims],
            "output": [Layer(self.calculate_n(), mm_dim)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the output has about the power of the views."""
        for project in self.group("inputs"):
            project.reset_parameters(generator)
        merges = self.group("merges")
        self.draw_factors(merges, len(merges), generator, None)
        power = 1 / self.mm_dim if self.normalize else self.rank
        self.group("output")[0].reset_parameters(generator, gain=power**-0.5)

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        inputs, merges = self.group("inputs"), self.group("merges")
        pairs = list(zip(inputs, merges, x, strict=True))
        views = x if self.normalize else None
        if all(merge.dense for merge in merges):
            z = pooled_products([self._affine(*pair) for pair in pairs], self.rank, views, mask)
        else:
            z = pooled([merge([self._inner(project, view)]) for project, merge, view in pairs], self.rank, views, mask)
        if self.normalize:
            z = power_normalized(z).to(x[0].dtype)
        z = self.drop(z, self.dropout_pre_lin)
        return self.drop(self.group("output")[0]([z]), self.dropout_output)

    _fuse_masked = _fuse

    def _inner(self, project: Projection, view: Tensor) -> Tensor:
        return self.drop(project([view]), self.dropout_input)

    def _affine(self, project: Projection, merge: Projection, view: Tensor) -> Affine:
        """Return M_i and c_i for y_i, or M_i P_i and M_i b_i + c_i for x_i where that takes fewer multiplications."""
        M, c, width = merge.weight, merge.bias, view.shape[-1]
        b = project.bias
        assert b is not None
        assert c is not None
        drops = self.dropout_input and self.training
        # A choice by the batch would break an export with a dynamic one.
        rows = NOMINAL_ROWS if torch.compiler.is_compiling() else view.numel() // width
        if project.dense and not drops and width * (self.mm_dim + rows) < rows * self.mm_dim:
            return M @ project.weight, torch.addmv(c, M, b), view
        return M, c, self._inner(project, view)
