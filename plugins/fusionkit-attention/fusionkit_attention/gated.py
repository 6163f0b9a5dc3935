"""Tanh units, each weighed by a gate that sees all views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Unpack

import torch
from fusionkit import DimsError, Fusion, FusionError, Traits
from fusionkit.fusion import FusionOptions, Layer, LayeredFusion, Layers, dense_projection
from torch import Tensor, nn

from fusionkit_attention.attention_pool import softmax
from fusionkit_attention.options import check_choice

GATES = ("sigmoid", "softmax")


class Gated(LayeredFusion):
    """`sum_i z_i * h_i` with `h_i = tanh(W_i x_i)` and `z_i = sigmoid(U_i [x])`, views (..., n_i) -> (..., n).

    `*` is elementwise, [x] joins all views.  W_i (n, n_i), U_i (n, D), the rows i*n to (i+1)*n of one matrix; no
    biases; l = (k+1) n D, tied 2 n D.  An absent view is left out; a row without any gives 0.  `explain` returns
    `gates` (..., k, n), the z_i, 0 where the view is absent, and `weights` (..., k), their means.
    Source: Arevalo et al., "Gated Multimodal Units for Information Fusion", 2017: the unit of two views is tied, that
    of more is not.

    Args:
        gate: "sigmoid", or "softmax": over the views, entry by entry.
        tied: `z_2 = 1 - z_1`; for two views and gate="sigmoid".
        parameter_fabrication: how the W_i and U are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.

    Raises:
        DimsError: tied, and there are not two views.
    """

    traits = Traits(batch_independent=True, free_n=True, missing="skip", init_gain=(0.05, 2), order_in_k=2)
    per_view = ("inputs",)
    rows_per_view: ClassVar[tuple[str, ...]] = ("gates",)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        gate: str = "sigmoid",
        tied: bool = False,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.gate, self.tied = check_choice("gate", gate, GATES), tied
        self.parameter_fabrication = parameter_fabrication
        self.check_tied()
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return three views, two tied ones, and a softmax."""
        return [
            {"dims": [4, 3, 2], "n": 5},
            {"dims": [4, 3], "n": 3, "tied": True},
            {"dims": [3, 4, 4], "n": 4, "gate": "softmax"},
        ]

    def check_tied(self) -> None:
        """Raise an error if ``tied`` is no bool, or does not fit the gate or the number of views."""
        if not isinstance(self.tied, bool):
            raise FusionError(f"tied should be True or False; found {self.tied!r}.")
        if self.tied and self.gate != "sigmoid":
            raise FusionError(f"tied should be False for gate={self.gate!r}, whose gates add up to 1; found True.")
        if self.tied and self.dims is not None and len(self.dims) != 2:
            raise DimsError(f"tied should be False unless there are two views; found True with {len(self.dims)}.")

    def layers(self) -> Layers:
        """Return the W_i, and the U_i in one matrix."""
        n, dims, made = self.calculate_n(), self.resolve_dims(), self.parameter_fabrication
        gates = 1 if self.tied else len(dims)
        return {
            "inputs": [Layer(n, width, False, made) for width in dims],
            "gates": [Layer(gates * n, dims, False, made)],
        }

    def weighed(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the output (..., n) and the gates (..., k, n)."""
        scores = self.group("gates")[0](x)
        if self.tied:
            first = torch.sigmoid(scores)
            gates = torch.stack([first, 1 - first], -2)
        else:
            scores = scores.unflatten(-1, (len(x), -1))
            gates = torch.sigmoid(scores) if self.gate == "sigmoid" else softmax(scores, 1.0, mask)
        out = None
        for gate, view in zip(gates.unbind(-2), self.each("inputs", x), strict=True):
            # The unit of an absent view is 0: it is filled with 0, and there are no biases.
            unit = torch.tanh(view)
            out = gate * unit if out is None else torch.addcmul(out, gate, unit)
        assert out is not None
        return out, gates

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self.weighed(x, mask)[0]

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        out, gates = self.weighed(x, mask)
        if mask is not None:
            gates = torch.where(mask.unsqueeze(-1), gates, 0.0)
        return {"output": out, "weights": gates.mean(-1), "gates": gates}

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views, whose matrices are dense; with one of two tied views it is not tied."""
        if not self.tied:
            return super().restrict(views)
        kept, (inputs, (U,)) = self.indices_to_fold(views), (self.group("inputs"), self.group("gates"))
        columns = self.dense(U)[0].split(U.dims, 1)
        W = torch.cat([columns[i] for i in kept], 1)
        # The gate of the second view, 1 - sigmoid(U [x]), is sigmoid(-U [x]).
        gates = dense_projection(W if kept[0] == 0 else -W, None, [U.dims[i] for i in kept])
        units = nn.ModuleList(dense_projection(*self.dense(inputs[i])) for i in kept)
        parts = {"inputs": units, "gates": nn.ModuleList([gates])}
        return self.restricted(views, parts=parts, parameter_fabrication=None, tied=len(kept) == 2)
