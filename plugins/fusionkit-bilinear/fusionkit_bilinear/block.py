"""Blocks of a low-rank core tensor between projections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import FusionError, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_size
from torch import Tensor

from fusionkit_bilinear.base import MultiplicativeFusion
from fusionkit_bilinear.functions import chunk_sizes, pooled, power_normalized


class Block(MultiplicativeFusion):
    """`P_o [z_1; ...; z_C] + b_o`, `z_c = sum_r prod_i (M_i^{c,r} y_i^c + m_i^{c,r})`, `y_i = P_i x_i + b_i`.

    Views (..., n_i) -> (..., n); y_i is cut into C chunks y_i^c.  P_i (mm_dim, n_i), M_i^c (rank*s_c, s_c) with
    M_i^{c,r} one below the other, r = 1, ..., rank, P_o (n, mm_dim), and the biases m_i^c, b_i and b_o, where the s_c
    are the sizes of the chunks, with the sum mm_dim; l = sum_i [(n_i + 1)*mm_dim + sum_c (s_c + 1)*rank*s_c] + (mm_dim
    + 1)*n.  With one view, a linear map before the normalization.  Source: Ben-younes et al., "BLOCK: Bilinear
    Superdiagonal Fusion for Visual Question Answering and Visual Relationship Detection", 2019, equations 3 (sum of
    blocks) and 4 (block-superdiagonal core), with blocks of low rank as in the authors' code.

    Args:
        mm_dim: width of the y_i.
        chunks: C, the number of blocks, from 1 to mm_dim.
        rank: number of products in each block.
        pos_norm: where the power and l2 normalization is, "before_cat" (each z_c) or "after_cat"; None: nowhere.
        dropout_input, dropout_pre_lin, dropout_output: dropout rates of the y_i, of the z_c, and of the result.
        parameter_fabrication: how the P_i are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    per_view = ("inputs", "merges")
    traits = Traits(batch_independent=True, free_n=True, missing="skip", memory_factor=14)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        mm_dim: int = 1600,
        chunks: int = 20,
        rank: int = 15,
        pos_norm: str | None = "before_cat",
        dropout_input: float = 0.0,
        dropout_pre_lin: float = 0.0,
        dropout_output: float = 0.0,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.mm_dim = check_size("mm_dim, the width of the projected views,", mm_dim)
        self.chunks = check_size("chunks, the number of blocks,", chunks)
        self.rank = check_size("rank, the number of products in a block,", rank)
        self.pos_norm = check_pos_norm(pos_norm)
        self.sizes = chunk_sizes(self.mm_dim, self.chunks)
        self.keep_rates(dropout_input=dropout_input, dropout_pre_lin=dropout_pre_lin, dropout_output=dropout_output)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return blocks of two sizes, normalized before, after, and not at all."""
        return [
            {"dims": [4, 4], "n": 5, "mm_dim": 5, "chunks": 2, "rank": 2},
            {"dims": [3, 4, 3], "n": 4, "mm_dim": 6, "chunks": 2, "rank": 3, "pos_norm": "after_cat"},
            {"dims": [4, 3], "n": 3, "mm_dim": 4, "chunks": 3, "rank": 1, "pos_norm": None},
        ]

    def layers(self) -> Layers:
        """Return P_i, M_i^c (all c of a view, then those of the next) and P_o."""
        dims = self.resolve_dims()
        return {
            "inputs": [Layer(self.mm_dim, width, fabrication=self.parameter_fabrication) for width in dims],
            "merges": [Layer(self.rank * size, size) for _ in dims for size in self.sizes],
            "output": [Layer(self.calculate_n(), self.mm_dim)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the output has about the power of the views."""
        inputs = self.group("inputs")
        for project in inputs:
            project.reset_parameters(generator)
        self.draw_factors(self.group("merges"), len(inputs), generator, None)
        self.group("output")[0].reset_parameters(generator, gain=normalized_gain(self, self.rank))

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        projected = (project([view]) for project, view in zip(self.group("inputs"), x, strict=True))
        inner = [self.drop(view, self.dropout_input) for view in projected]
        merges, chunks = self.group("merges"), [view.split(self.sizes, -1) for view in inner]
        blocks = []
        for c in range(self.chunks):
            parts = zip(merges[c :: self.chunks], chunks, strict=True)
            blocks.append(
                pooled([merge([view[c]]) for merge, view in parts], self.rank, x if self.pos_norm else None, mask)
            )
        z = joined(blocks, self.pos_norm).to(x[0].dtype)
        z = self.drop(z, self.dropout_pre_lin)
        return self.drop(self.group("output")[0]([z]), self.dropout_output)

    _fuse_masked = _fuse


def check_pos_norm(pos_norm: str | None) -> str | None:
    """Return "before_cat", "after_cat" or None, or raise a ``FusionError``."""
    if pos_norm not in ("before_cat", "after_cat", None):
        raise FusionError(f"pos_norm should be 'before_cat', 'after_cat' or None; found {pos_norm!r}.")
    return pos_norm


def normalized_gain(fusion: Any, power: float) -> float:
    """Return the gain of P_o for blocks of this mean square before the normalization, if there is any."""
    groups = {"before_cat": fusion.chunks, "after_cat": 1, None: fusion.mm_dim * power}[fusion.pos_norm]
    return float((fusion.mm_dim / groups) ** 0.5)


def joined(blocks: Sequence[Tensor], pos_norm: str | None) -> Tensor:
    """Return the concatenation of the blocks (..., s_c), power and l2 normalized before or after it."""
    sizes = [block.shape[-1] for block in blocks]
    z = torch.cat(tuple(blocks), -1)
    if pos_norm == "after_cat":
        return power_normalized(z)
    if pos_norm is None:
        return z
    # All blocks of one size at once; chunk_sizes gives at most two sizes, in two runs.
    runs = [(size, list(sizes).count(size)) for size in dict.fromkeys(sizes)]
    parts = [
        power_normalized(part.unflatten(-1, (count, size))).flatten(-2)
        for part, (size, count) in zip(z.split([size * count for size, count in runs], -1), runs, strict=True)
    ]
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]
