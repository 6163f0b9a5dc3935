"""Scores weighted by how certain each view is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from fusionkit.fusion import FusionOptions, Traits, check_choice, check_positive, masked_softmax
from torch import Tensor

from fusionkit_decision.base import ClassFusion, weighted_sum, wide

#: Below this logarithm a probability is 0 in float64 too; 0 times a finite number is 0 then, also for a class of -inf.
LOWEST = -1e3


class ConfidencePool(ClassFusion):
    """`sum_i w_i x_i` with `w = softmax_i(s_i / tau)`, scores of c classes, (..., c) each -> (..., c); l = 0.

    Late fusion: ``model.head=none``, where the encoders give the scores.  The confidence s_i of a view is computed from
    p_i = softmax(x_i).  One view is returned as it is.  A row without any view gives 0.  Source: minus the entropy,
    `p_i . x_i - logsumexp(x_i)`, and the difference of the two greatest probabilities are the usual measures of
    confidence; logsumexp: Liu et al., "Energy-based Out-of-distribution Detection", 2020, the negative free energy.

    ``explain`` adds `weights` (..., k), the w_i.

    Args:
        score: s_i: "entropy" (minus the entropy of p_i), "margin" (of the two greatest p_i) or "logsumexp" (of x_i).
        tau: temperature, above 0.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(
        permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, init_gain=(0.05, 2.0),
        missing="skip",
    )  # fmt: skip

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        score: str = "entropy",
        tau: float = 1.0,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.score = check_choice("score", score, ("entropy", "margin", "logsumexp"))
        self.tau = check_positive("tau, the temperature,", tau)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return every score."""
        return [
            {"dims": [4, 4, 4]},
            {"dims": [3, 3], "score": "margin", "tau": 0.5},
            {"dims": [5, 5, 5], "score": "logsumexp", "tau": 2.0},
        ]

    def _confidence(self, view: Tensor) -> Tensor:
        """Return s_i (..., 1) of a view (..., c)."""
        if self.score == "logsumexp":
            return view.logsumexp(-1, keepdim=True)
        if self.score == "margin":
            greatest = view.softmax(-1).topk(2, -1).values
            return greatest[..., :1] - greatest[..., 1:]
        logs = F.log_softmax(view, -1)
        return (logs.exp() * logs.clamp(min=LOWEST)).sum(-1, keepdim=True)

    def _pool(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the result (..., c) and the weights (..., k)."""
        views = wide(x)
        scores = torch.cat([self._confidence(view) for view in views], -1)
        weights = masked_softmax(scores / self.tau, mask)
        return weighted_sum(views, weights.split(1, -1)).to(x[0].dtype), weights

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._pool(x, mask)[0]

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        out, weights = self._pool(x, mask)
        return {"output": out, "weights": weights.to(out.dtype)}
