"""A block-diagonal core tensor between projections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack, cast

import torch
from fusionkit import Fusion, FusionError, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_size, dense_projection
from torch import Tensor, nn

from fusionkit_bilinear.base import MAX_BYTES, MultiplicativeFusion, rows
from fusionkit_bilinear.block import check_pos_norm, joined, normalized_gain
from fusionkit_bilinear.functions import chunk_sizes, contract, greatest_base, leveled, without_views

#: mm_dim by default for one or two views, and the entries of its cores for two views in 20 chunks, as in the code.
MM_DIM, ENTRIES = 1600, 20 * 80**3


class BlockTucker(MultiplicativeFusion):
    """`P_o [z_1; ...; z_C] + b_o`, `z_c = T_c (y_1^c ⊗ ... ⊗ y_k^c) + t_c`, `y_i = P_i x_i + b_i`.

    Views (..., n_i) -> (..., n); y_i is cut into C chunks y_i^c; t_c, b_i and b_o are biases.  P_i (mm_dim, n_i), T_c
    (s_c, s_c^k) with the columns of y_k running fastest, P_o (n, mm_dim), where the s_c are the sizes of the chunks,
    with the sum mm_dim; l = sum_i (n_i + 1)*mm_dim + sum_c (s_c^k + 1)*s_c + (mm_dim + 1)*n.  With one view, a linear
    map before the normalization.  Source: Ben-younes et al., "BLOCK: Bilinear Superdiagonal Fusion for Visual Question
    Answering and Visual Relationship Detection", 2019, equations 3 (sum of blocks) and 4 (block-superdiagonal core).

    Args:
        mm_dim: width of the y_i; None: 1600 up to k = 2, beyond chunks * s with the greatest s for which
            chunks * s^(k+1) <= 20 * 80^3, 520 for k = 3 and 120 for k = 6 with 20 chunks.
        chunks: C, the number of blocks, from 1 to mm_dim.
        pos_norm: where the power and l2 normalization is, "before_cat" (each z_c) or "after_cat"; None: nowhere.
        dropout_input, dropout_pre_lin, dropout_output: dropout rates of the y_i, of the z_c, and of the result.
        parameter_fabrication: how the P_i are made.
        max_bytes: the most that the parameters may take; None: no limit.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.

    Raises:
        FusionError: more than ``max_bytes``, or more chunks than mm_dim.
    """

    per_view = ("inputs",)
    traits = Traits(batch_independent=True, free_n=True, missing="neutral", order_in_k=None)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        mm_dim: int | None = None,
        chunks: int = 20,
        pos_norm: str | None = "before_cat",
        dropout_input: float = 0.0,
        dropout_pre_lin: float = 0.0,
        dropout_output: float = 0.0,
        parameter_fabrication: Any = None,
        max_bytes: int | None = MAX_BYTES,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.chunks = check_size("chunks, the number of blocks,", chunks)
        self.mm_dim = self.core_width(mm_dim, self.default_mm_dim)
        self.pos_norm = check_pos_norm(pos_norm)
        self.sizes = () if self.mm_dim is None else chunk_sizes(self.mm_dim, self.chunks)
        self.keep_rates(dropout_input=dropout_input, dropout_pre_lin=dropout_pre_lin, dropout_output=dropout_output)
        self.parameter_fabrication = parameter_fabrication
        self.max_bytes = max_bytes
        self.check_bytes(max_bytes, "take a smaller mm_dim, more chunks, or block, whose blocks have low rank")
        self.create()

    def default_mm_dim(self, k: int) -> int:
        """Return the width for k views and these chunks."""
        if k <= 2:
            return MM_DIM
        if self.chunks > ENTRIES:
            raise FusionError(
                f"chunks should be at most {ENTRIES} without mm_dim; found {self.chunks}: take fewer chunks, or give "
                "mm_dim."
            )
        return self.chunks * greatest_base(ENTRIES // self.chunks, k + 1)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return blocks of two sizes, normalized before, after, and not at all."""
        return [
            {"dims": [4, 4], "n": 5, "mm_dim": 5, "chunks": 2},
            {"dims": [3, 4, 3], "n": 4, "mm_dim": 4, "chunks": 2, "pos_norm": "after_cat"},
            {"dims": [4, 3], "n": 3, "mm_dim": 4, "chunks": 3, "pos_norm": None},
        ]

    def layers(self) -> Layers:
        """Return P_i, T_c and P_o."""
        dims = self.resolve_dims()
        return {
            "inputs": [Layer(self.mm_dim, width, fabrication=self.parameter_fabrication) for width in dims],
            "cores": [Layer(size, size ** len(dims)) for size in self.sizes],
            "output": [Layer(self.calculate_n(), self.mm_dim)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the output has about the power of the views."""
        inputs = self.group("inputs")
        self.draw_factors(inputs, len(inputs), generator, None)
        for core in self.group("cores"):
            core.reset_parameters(generator)
        self.group("output")[0].reset_parameters(generator, gain=normalized_gain(self, 1.0))

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        projected = (project([view]) for project, view in zip(self.group("inputs"), x, strict=True))
        inner = rows([self.drop(view, self.dropout_input) for view in projected])
        share: Tensor | float = 1.0
        if self.pos_norm is not None:
            inner, share = leveled(inner, rows(x))
        chunks = zip(*(view.split(self.sizes, -1) for view in inner), strict=True)
        blocks = [
            contract(core.matrix(x[0]), parts, cast("Tensor", core.bias) * share)
            for core, parts in zip(self.group("cores"), chunks, strict=True)
        ]
        z = joined(blocks, self.pos_norm).to(x[0].dtype).view(*x[0].shape[:-1], self.mm_dim)
        z = self.drop(z, self.dropout_pre_lin)
        return self.drop(self.group("output")[0]([z]), self.dropout_output)

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views: every T_c is contracted with the b_i of the other views."""
        kept = self.indices_to_fold(views)
        chunks = zip(
            *(cast("Tensor", project.bias).detach().split(self.sizes) for project in self.group("inputs")), strict=True
        )
        cores = nn.ModuleList()
        for core, biases in zip(self.group("cores"), chunks, strict=True):
            T, t = self.dense(core)
            cores.append(dense_projection(without_views(T, biases, kept), t))
        # The width of this operator, not the one by default for fewer views.
        return self.restricted(views, parts={"cores": cores}, mm_dim=self.mm_dim)
