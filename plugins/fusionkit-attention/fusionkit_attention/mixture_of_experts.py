"""Experts on all views, or one per view, weighed by a gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Fusion, FusionError, Traits
from fusionkit.fusion import FusionOptions, Layer, LayeredFusion, Layers, check_number, check_size, masked_softmax
from torch import Tensor


class MixtureOfExperts(LayeredFusion):
    """`y = sum_e g_e (E_e [x] + c_e)`, `g = softmax(G [x] + b)`; with ``experts="views"`` `E_i x_i + c_i` of each view.

    Views (..., n_i) -> (..., n), [x] all of them joined, E_e (n, D) or (n, n_i), c_e (n,), G (E, D), b (E,); l = E*(n +
    1)*(D + 1), with "views" n*(D + k) + k*(D + 1).  ``top_k`` takes the softmax over the greatest scores, and 0 for the
    others; every expert is computed, so that the work does not depend on the data.  Absent views are 0; with "views"
    their g_i is 0 too, and a row without any gives 0.  With "views" and one view, y is a linear map.

    explain: `experts` (..., E), the g_e, or with "views" `weights` (..., k), which sum to one; unless ``balance`` is 0
    also `loss` (), `balance * E * sum_e f_e p_e`, with p the mean of g over the rows that have any and f the share of
    an expert in the choices of ``top_k`` (else p); it is ``balance`` where all experts are used alike, and without
    ``top_k`` never less.

    Source: Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", 2017,
    equations 1 and 2, 5 for ``top_k``, without its noise; Fedus et al., "Switch Transformers", 2022, equation 4 for the
    loss.

    Args:
        experts: E, the number of experts, at least 2; or "views": one for each view.
        top_k: number of experts that a row uses, from 2 to E; None: all.
        balance: factor of the loss, at least 0.
        parameter_fabrication: how G and the E_e are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    # Experts on all views have other names, since they do not belong to one.
    per_view = ("inputs",)
    rows_per_view = ("scores",)
    traits = Traits(batch_independent=True, free_n=True, init_gain=(0.05, 2.0), missing="neutral")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        experts: int | str = 4,
        top_k: int | None = None,
        balance: float = 0.01,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        if isinstance(experts, str) and experts != "views":
            raise FusionError(f"experts should be an integer of at least 2, or 'views'; found {experts!r}.")
        self.experts = experts if experts == "views" else check_size("experts, if not 'views',", experts, minimum=2)
        self.top_k = None if top_k is None else check_size("top_k, the experts of a row,", top_k, minimum=2)
        if top_k is not None and (experts != "views" or self.dims is not None) and top_k > self.count:
            raise FusionError(f"top_k should be from 2 to the number of experts, {self.count}; found {top_k!r}.")
        self.balance = check_number("balance, the factor of the loss,", balance)
        if self.balance < 0:
            raise FusionError(f"balance, the factor of the loss, should be at least 0; found {balance!r}.")
        self.parameter_fabrication = parameter_fabrication
        if experts == "views":
            self.declare_traits(missing="skip")
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return experts on all views, the two best of three, and one per view."""
        return [
            {"dims": [4, 4], "n": 5},
            {"dims": [3, 4, 3], "n": 4, "experts": 3, "top_k": 2, "balance": 0.1},
            {"dims": [3, 4], "n": 4, "experts": "views"},
            {"dims": [3, 2, 4], "n": 4, "experts": "views", "top_k": 2, "balance": 0},
        ]

    @property
    def count(self) -> int:
        """E, the number of experts."""
        return len(self.resolve_dims()) if isinstance(self.experts, str) else self.experts

    def layers(self) -> Layers:
        """Return G and the E_e."""
        n, dims, made = self.calculate_n(), self.resolve_dims(), self.parameter_fabrication
        gate = [Layer(self.count, dims, fabrication=made)]
        if self.experts == "views":
            return {"scores": gate, "inputs": [Layer(n, width, fabrication=made) for width in dims]}
        return {"gate": gate, "experts_on_all": [Layer(n, dims, fabrication=made)] * self.count}

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._mixed(x, mask)[0]

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        output, g, chosen = self._mixed(x, mask)
        said = {"output": output, "weights" if self.experts == "views" else "experts": g}
        if self.balance:
            p = _share(g)
            f = p if self.top_k is None or chosen is None else _share(chosen.to(g.dtype))
            said["loss"] = self.balance * self.count * (f * p).sum()
        return said

    def _mixed(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return y (..., n), g (..., E), and which experts g is over, (..., E); None: all."""
        by_view = self.experts == "views"
        (gate,) = self.group("scores" if by_view else "gate")
        # Joined once for the gate and all experts; a fabrication may need the views apart.
        joined = [torch.cat(list(x), -1)] if gate.dense and len(x) > 1 else x
        scores, chosen = gate(joined), mask if by_view else None
        if self.top_k is not None:
            chosen = _greatest(scores, self.top_k, chosen)
        g = masked_softmax(scores, chosen)
        outs = self.each("inputs", x) if by_view else [expert(joined) for expert in self.group("experts_on_all")]
        weights = g.to(outs[0].dtype).split(1, -1)
        y = weights[0] * outs[0]
        for weight, out in zip(weights[1:], outs[1:], strict=True):
            y = torch.addcmul(y, weight, out)
        return y, g, chosen

    def restricted(self, views: Sequence[int], **options: Any) -> Fusion:
        """Return the operator on these views; with an expert per view, no more than these are chosen."""
        if self.experts == "views" and self.top_k is not None and self.top_k >= len(views):
            options["top_k"] = None
        return super().restricted(views, **options)


def _greatest(scores: Tensor, count: int, mask: Tensor | None) -> Tensor:
    """Return where the ``count`` greatest scores that are present stand, bool (..., E)."""
    present = scores.detach() if mask is None else torch.where(mask, scores.detach(), -torch.inf)
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, present.topk(count).indices, True)
    return chosen if mask is None else chosen & mask


def _share(parts: Tensor) -> Tensor:
    """Return the sum over all rows, (..., E) -> (E,), divided by its own sum: the mean of rows that sum to one."""
    wide = torch.float64 if parts.dtype == torch.float64 else torch.float32
    total = parts.reshape(-1, parts.shape[-1]).sum(0, dtype=wide)
    return total / total.detach().sum().clamp(min=1)
