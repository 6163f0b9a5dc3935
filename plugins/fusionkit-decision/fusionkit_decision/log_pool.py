"""The logarithmic pool: the normalized product of the views' class probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from fusionkit.fusion import FusionOptions, Traits, check_positive, present_count
from torch import Tensor

from fusionkit_decision.base import ClassFusion, ViewWeights, added, weighted_sum, wide


class LogPool(ViewWeights, ClassFusion):
    """`log_softmax(sum_i w_i x_i / tau)`, scores of c classes, (..., c) each -> log-probabilities (..., c).

    Late fusion: ``model.head=none``, where the encoders give the scores.  w_i = 1 is the product of experts, w_i = 1/k
    their geometric mean.  l = 0, or k with learned weights.  One view is log_softmax(w_1 x_1 / tau).  A row without any
    view gives -log c.  Source: Genest and Zidek, "Combining Probability Distributions", 1986, the logarithmic opinion
    pool; w_i = 1: Hinton, "Training Products of Experts by Minimizing Contrastive Divergence", 2002, equation 1.

    ``explain`` adds `weights` (..., k), the w_i of the present views divided by their sum.

    Args:
        weighting: "one" (w_i = 1), "mean" (1 / number of present views), or "learned" (softplus of the parameter
            ``weight`` (k,); it starts at w_i = 1).
        tau: temperature, above 0.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(batch_independent=True, constant_init=True, init_gain=(0.1, 100.0), missing="skip")
    start = math.log(math.expm1(1.0))

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        weighting: str = "one",
        tau: float = 1.0,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.tau = check_positive("tau, the temperature,", tau)
        self.keep_weighting(weighting, ("one", "mean", "learned"))

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return every weighting."""
        return [
            {"dims": [4, 4, 4]},
            {"dims": [3, 3], "weighting": "mean", "tau": 0.5},
            {"dims": [5, 5, 5], "weighting": "learned", "tau": 2.0},
        ]

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        views = wide(x)  # Absent ones are zeros.
        learned = self.weighting == "learned"
        total = weighted_sum(views, F.softplus(self.weight).unbind()) if learned else added(views)
        if self.weighting == "mean":
            total = total / (len(x) if mask is None else present_count(mask, total.dtype))
        return F.log_softmax(total if self.tau == 1 else total / self.tau, -1).to(x[0].dtype)

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        ones = x[0].new_ones(*x[0].shape[:-1], len(x))
        present = ones if mask is None else mask.to(ones.dtype)
        if self.weighting == "learned":
            present = present * F.softplus(self.weight).to(ones.dtype)
        total = present.sum(-1, keepdim=True)
        return {"output": self._fuse(x, mask), "weights": present / torch.where(total > 0, total, 1.0)}
