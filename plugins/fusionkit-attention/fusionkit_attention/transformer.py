"""Self-attention over one token per view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_choice, present_count
from torch import Tensor

from fusionkit_attention.tokens import TokenFusion, normed


class Transformer(TokenFusion):
    """`y = O pool(LN(z)) + o`; z: the tokens `[cls, P_1 x_1 + b_1, ..., P_k x_k + b_k]` behind ``depth`` layers.

    A layer is `z + Att(LN(z))`, then `z + FF(LN(z))`; LN is layer normalization, Att self-attention, without a bias of
    the keys, FF a network with one hidden layer and GELU.  Views (..., n_i) -> (..., n), P_i (d, n_i), the b_i tell the
    views apart; O (n, d*p), o (n,), p = 1 or with ``pool="concat"`` k.  With ATT = 4d² + 3d and FF = 2df + f + d,
    l = d*(D + k) + [d] + depth*(ATT + FF + 4d) + 2d + n*(d*p + 1), [d] only for "cls".  A single view is a token too.
    Absent views are no keys and not pooled ("concat": 0); a row without any gives what cls alone gives, else o.

    explain: `weights` (..., k), how the last layer's cls attends to the views, which sum to less than one, since it
    attends to itself too; without cls the mean over the present queries, which sums to one.  Mean over the heads.

    Source: Vaswani et al., "Attention Is All You Need", 2017, equations 1 and 2; norms as in Xiong et al., "On Layer
    Normalization in the Transformer Architecture", 2020, table 1; cls as in Devlin et al., "BERT", 2019.

    Args:
        width: d, the width of the tokens, a multiple of ``heads``.
        heads: number of attention heads.
        depth: number of layers, at least 1.
        ff_width: f, the inner width of FF; None: 2 * width.
        pool: "cls": one learned token, (d,), is projected; "mean" or "concat": those of the views.
        parameter_fabrication: how the P_i are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    cls: Tensor

    traits = Traits(
        batch_independent=True, free_n=True, init_gain=(0.05, 2.0), missing="skip", order_in_k=2.0, memory_factor=30
    )

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        width: int = 64,
        heads: int = 4,
        depth: int = 2,
        ff_width: int | None = None,
        pool: str = "cls",
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.keep_sizes(width, heads, depth, ff_width, least_depth=1)
        self.pool = check_choice("pool", pool, ("cls", "mean", "concat"))
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return one of each pool."""
        return [
            {"dims": [4, 4], "n": 5, "width": 4, "heads": 2},
            {"dims": [3, 1, 4], "n": 3, "width": 4, "depth": 1, "pool": "mean"},
            {"dims": [3, 4, 2, 3], "n": 3, "width": 4, "heads": 1, "depth": 1, "ff_width": 4, "pool": "concat"},
        ]

    def layers(self) -> Layers:
        """Return the P_i, the matrices of the layers, and O."""
        pooled = (self.width,) * len(self.resolve_dims()) if self.pool == "concat" else self.width
        inner = self.token_layers(self.depth, self.parameter_fabrication)
        return {**inner, "output": [Layer(self.calculate_n(), pooled)]}

    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Return cls, and the norms: two per layer and the last one."""
        norms = (2 * self.depth + 1, self.width)
        learned = {"cls": (self.width,)} if self.pool == "cls" else {}
        return {**learned, "norm_weights": norms, "norm_biases": norms}

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._attended(x, mask)[0]

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        output, weights = self._attended(x, mask)
        weights = weights.mean(-3)
        of_views = weights[..., 0, 1:] if self.pool == "cls" else _mean(weights, mask)
        return {"output": output, "weights": of_views}

    def _attended(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return y (..., n), and the weights of the last layer (..., heads, queries, tokens)."""
        tokens, keys, norms = self.each("inputs", x), mask, self.norms()
        if self.pool == "cls":
            tokens = [self.cls.expand_as(tokens[0]), *tokens]
            keys = None if mask is None else torch.cat([torch.ones_like(mask[..., :1]), mask], -1)
        z = torch.stack(tokens, -2)
        for block in range(self.depth):
            inner = queries = normed(z, norms[2 * block])
            if self.pool == "cls" and block == self.depth - 1:
                # Nothing reads the other tokens any more.
                z, queries = z[..., :1, :], inner[..., :1, :]
            change, weights = self.attend(block, queries, inner, keys)
            z = self.feed(block, z + change, norms[2 * block + 1])
        z = normed(z, norms[-1])
        if self.pool == "mean":
            z = _mean(z, mask).unsqueeze(-2)
        elif self.pool == "concat" and mask is not None:
            z = torch.where(mask.unsqueeze(-1), z, 0.0)
        return self.group("output")[0]([z.flatten(-2)]), weights


def _mean(z: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the present tokens, (..., k, d) -> (..., d); 0 without any."""
    if mask is None:
        return z.mean(-2)
    return torch.where(mask.unsqueeze(-1), z, 0.0).sum(-2) / present_count(mask, z.dtype)
