"""Weighed projections of the views, plus a small network on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from fusionkit import Traits
from fusionkit.fusion import FusionOptions, Layer, LayeredFusion, Layers, check_size, masked_softmax
from torch import Tensor, nn


class ResidualGate(LayeredFusion):
    """`sum_i g_i h_i + R gelu(Q [g_1 h_1; ...; g_k h_k] + q) + r`, views (..., n_i) -> (..., n).

    `h_i = P_i x_i + b_i` and the weights `g_i = softmax_i(v.tanh(V h_i + c))` are those of ``attention_pool`` with
    plain scores; a is ``hidden``, V (a, n), v and c (a,), Q (a, k n), q (a,), R (n, a), r (n,); R and r start at 0, so
    it starts as that pool.  l = n (D + k) + a (n + 2) + a (k n + 1) + n (a + 1).  An absent view is left out; a row
    without any gives R gelu(q) + r.  With one view, g_1 = 1.  `explain` returns `weights` (..., k), the g_i.
    Source: the weights are those of Ilse et al., "Attention-based Deep Multiple Instance Learning", 2018, equation 8;
    the residual branch is a construction of this package.

    Args:
        hidden: a; by default min(n, 128).
        parameter_fabrication: how the P_i are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(batch_independent=True, free_n=True, missing="skip", init_gain=(0.05, 2), memory_factor=12)
    per_view = ("inputs",)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        hidden: int | None = None,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.hidden = None if hidden is None else check_size("hidden, the height of V and Q,", hidden)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views and three."""
        return [{"dims": [4, 3, 2], "n": 5, "hidden": 8}, {"dims": [4, 4], "n": 3, "hidden": 8}]

    def layers(self) -> Layers:
        """Return the P_i; V; v; Q; R."""
        n, dims = self.calculate_n(), self.resolve_dims()
        height = self.hidden or min(n, 128)
        return {
            "inputs": [Layer(n, width, fabrication=self.parameter_fabrication) for width in dims],
            "inner": [Layer(height, n)],
            "outer": [Layer(1, height, False)],
            "branch": [Layer(height, (n,) * len(dims))],
            "output": [Layer(n, height)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters; R and r become 0."""
        super().draw(generator)
        for parameter in self.group("output")[0].parameters():
            nn.init.zeros_(parameter)

    def _weighed(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the output (..., n) and the weights (..., k, 1)."""
        h = torch.stack(self.each("inputs", x), -2)
        (V,), (v,), (Q,), (R,) = (self.group(name) for name in ("inner", "outer", "branch", "output"))
        weights = masked_softmax(v([torch.tanh(V([h]))]), None if mask is None else mask.unsqueeze(-1), -2)
        parts = weights * h
        return parts.sum(-2) + R([F.gelu(Q([parts.flatten(-2)]))]), weights

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._weighed(x, mask)[0]

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        out, weights = self._weighed(x, mask)
        return {"output": out, "weights": weights.squeeze(-1)}
