"""Learned latents that attend to one token per view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_choice, check_size
from torch import Tensor

from fusionkit_attention.tokens import TokenFusion, normed


class Perceiver(TokenFusion):
    """`y = O pool(LN(z)) + o`; z: the M learned latents behind attention to the views and ``depth`` layers.

    First `z = latents + Att(LN(latents), LN(t))`, where the keys are the tokens `t_i = P_i x_i + b_i` and one key and
    value of zeros, then `z + FF(LN(z))`; a layer is `z + Att(LN(z))`, then `z + FF(LN(z))`.  LN is layer normalization,
    Att attention, without a bias of the keys, FF a network with one hidden layer and GELU.  Views (..., n_i) -> (...,
    n), P_i (d, n_i), latents (M, d), O (n, d*p), o (n,), p = 1 or with ``pool="flatten"`` M.  With ATT = 4d² + 3d and
    FF = 2df + f + d, l = d*(D + k) + M*d + (ATT + FF + 6d) + depth*(ATT + FF + 4d) + 2d + n*(d*p + 1).  With one view,
    the key of zeros keeps the softmax from being 1.  Absent views are no keys; a row without any gives what the latents
    alone give.

    explain: `weights` (..., k), how the latents attend to the views, mean over latents and heads; the key of zeros has
    the rest of one.

    Source: Jaegle et al., "Perceiver: General Perception with Iterative Attention", 2021, section 3.1, with one
    cross-attention; the zeros as ``add_zero_attn`` of torch's MultiheadAttention.

    Args:
        latents: M, the number of latents.
        width: d, the width of latents and tokens, a multiple of ``heads``.
        heads: number of attention heads.
        depth: number of layers behind the attention to the views, at least 0.
        ff_width: f, the inner width of FF; None: 2 * width.
        pool: "mean" or "flatten": how the latents are joined.
        parameter_fabrication: how the P_i are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    latents: Tensor

    traits = Traits(batch_independent=True, free_n=True, init_gain=(0.05, 2.0), missing="skip", memory_factor=24)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        latents: int = 8,
        width: int = 64,
        heads: int = 4,
        depth: int = 1,
        ff_width: int | None = None,
        pool: str = "mean",
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.count = check_size("latents, the number of learned latents,", latents)
        self.keep_sizes(width, heads, depth, ff_width, least_depth=0)
        self.pool = check_choice("pool", pool, ("mean", "flatten"))
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default depth, and none with the latents flattened."""
        return [
            {"dims": [4, 4], "n": 5, "latents": 2, "width": 4, "heads": 2},
            {"dims": [3, 1, 4], "n": 3, "latents": 2, "width": 4, "depth": 0, "ff_width": 4, "pool": "flatten"},
        ]

    def layers(self) -> Layers:
        """Return the P_i, the matrices of the first block and of the layers, and O."""
        pooled = self.width * (self.count if self.pool == "flatten" else 1)
        inner = self.token_layers(self.depth + 1, self.parameter_fabrication)
        return {**inner, "output": [Layer(self.calculate_n(), pooled)]}

    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Return the latents, and the norms: of tokens, of latents, two per layer with the last one."""
        norms = (2 * self.depth + 4, self.width)
        return {"latents": (self.count, self.width), "norm_weights": norms, "norm_biases": norms}

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._attended(x, mask)[0]

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        output, weights = self._attended(x, mask)
        return {"output": output, "weights": weights.mean((-3, -2))}

    def _attended(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return y (..., n), and the weights of the views (..., heads, M, k)."""
        of_tokens, *norms = self.norms()
        tokens = normed(torch.stack(self.each("inputs", x), -2), of_tokens)
        # The queries are the same in every row.
        change, weights = self.attend(0, normed(self.latents, norms[0]), tokens, mask, with_zero=True)
        z = self.feed(0, self.latents + change, norms[1])
        for block in range(1, self.depth + 1):
            inner = normed(z, norms[2 * block])
            change, _ = self.attend(block, inner, inner, None)
            z = self.feed(block, z + change, norms[2 * block + 1])
        z = normed(z, norms[-1])
        return self.group("output")[0]([z.mean(-2) if self.pool == "mean" else z.flatten(-2)]), weights
