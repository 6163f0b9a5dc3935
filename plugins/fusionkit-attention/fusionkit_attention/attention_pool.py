"""Projections of the views, weighed by learned scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Traits
from fusionkit.fusion import (
    FusionOptions,
    Layer,
    LayeredFusion,
    Layers,
    check_choice,
    check_positive,
    check_size,
    masked_softmax,
)
from torch import Tensor


class AttentionPool(LayeredFusion):
    """`sum_i softmax_i(s_i / tau) * h_i` with `h_i = P_i x_i + b_i`, views (..., n_i) -> (..., n).

    P_i (n, n_i) and b_i (n,) are learned; `*` is elementwise.  The scores s_i, where [x] joins all views, a is
    ``hidden``, and v, c and d (a,) and u (k,) are learned too:

    - "plain": `s_i = v.tanh(V h_i + c)`, V (a, n); l = n (D + k) + a (n + 2);
    - "gated": `s_i = v.(tanh(V h_i + c) * sigmoid(U h_i + d))`, U and V (a, n); l = n (D + k) + a (2n + 3);
    - "joint": `s = U [x] + u`, U (k, D); l = n (D + k) + k (D + 1);
    - "feature": `s_i = A h_i`, A (n, n), a softmax for every entry; l = n (D + k) + n^2.

    An absent view is left out; a row without any gives 0.  With one view it is a linear map.  `explain` returns
    `weights` (..., k), the softmax, and for "feature" also `gates` (..., k, n), whose means they are.
    Source: Ilse et al., "Attention-based Deep Multiple Instance Learning", 2018, equations 7 and 8 (plain) and 9
    (gated), with biases as in the authors' code, but for that of v, which the softmax cancels.

    Args:
        scores: "plain", "gated", "joint" or "feature".
        hidden: height of V and U; by default min(n, 128).
        tau: temperature of the softmax, above 0.
        parameter_fabrication: how the P_i and the U of "joint" are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(
        batch_independent=True, free_n=True, missing="skip", init_gain=(0.05, 2), memory_factor=12, order_in_k=2
    )
    per_view = ("inputs",)
    rows_per_view = ("outer",)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        scores: str = "plain",
        hidden: int | None = None,
        tau: float = 1.0,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.scores = check_choice("scores", scores, ("plain", "gated", "joint", "feature"))
        self.hidden = None if hidden is None else check_size("hidden, the height of V,", hidden)
        self.tau = check_positive("tau, the temperature,", tau)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the scores one after the other."""
        return [
            {"dims": [4, 3, 2], "n": 5, "hidden": 8},
            {"dims": [3, 4], "n": 4, "hidden": 8, "scores": "gated", "tau": 2.0},
            {"dims": [4, 2, 3], "n": 3, "scores": "joint"},
            {"dims": [2, 4, 3], "n": 4, "scores": "feature"},
        ]

    def layers(self) -> Layers:
        """Return the P_i, and the matrices of the scores."""
        n, dims, made = self.calculate_n(), self.resolve_dims(), self.parameter_fabrication
        inputs = {"inputs": [Layer(n, width, fabrication=made) for width in dims]}
        if self.scores == "joint":
            return {**inputs, "outer": [Layer(len(dims), dims, fabrication=made)]}
        if self.scores == "feature":
            return {**inputs, "outer": [Layer(n, n, False)]}
        height = self.hidden or min(n, 128)
        inner = [Layer(height, n)] * (2 if self.scores == "gated" else 1)
        return {**inputs, "inner": inner, "outer": [Layer(1, height, False)]}

    def _score(self, x: Sequence[Tensor], h: Tensor) -> Tensor:
        """Return the scores (..., k, 1) or (..., k, n) of the views, h (..., k, n)."""
        inner = h
        if self.scores in ("plain", "gated"):
            V, *U = self.group("inner")
            inner = torch.tanh(V([h]))
            inner = inner * torch.sigmoid(U[0]([h])) if U else inner
        joint = self.scores == "joint"
        scores: Tensor = self.group("outer")[0](x if joint else [inner])
        return scores.unsqueeze(-1) if joint else scores

    def _weighed(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the views h_i times their weights (..., k, n), and the weights (..., k, 1) or (..., k, n)."""
        h = torch.stack(self.each("inputs", x), -2)
        scores = self._score(x, h)
        scores = scores / self.tau if self.tau != 1 else scores
        weights = masked_softmax(scores, None if mask is None else mask.unsqueeze(-1), -2)
        return weights * h, weights

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._weighed(x, mask)[0].sum(-2)

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        parts, weights = self._weighed(x, mask)
        said = {"output": parts.sum(-2), "weights": weights.mean(-1)}
        return {**said, "gates": weights} if self.scores == "feature" else said
