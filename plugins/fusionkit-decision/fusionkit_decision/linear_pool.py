"""The linear pool: the weighted mean of the views' class probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from fusionkit.fusion import FusionOptions, Traits, check_positive, masked_softmax
from torch import Tensor

from fusionkit_decision.base import ClassFusion, ViewWeights, logsumexp, wide


class LinearPool(ViewWeights, ClassFusion):
    """`logsumexp_i(log w_i + log_softmax(x_i / tau))`, scores of c classes (..., c) each -> log-probabilities (..., c).

    Late fusion: ``model.head=none``, where the encoders give the scores.  sum_i w_i = 1 over the present views.  l = 0,
    or k with learned weights.  One view is log_softmax(x_1 / tau).  A row without any view gives -log c.  Source:
    Stone, "The Opinion Pool", 1961; Genest and Zidek, "Combining Probability Distributions", 1986, the linear opinion
    pool.

    ``explain`` adds `weights` (..., k), the w_i.

    Args:
        weighting: "mean" (1 / number of present views), or "learned" (softmax of the parameter ``weight`` (k,) over the
            present views; it starts at the mean).
        tau: temperature, above 0.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(batch_independent=True, constant_init=True, init_gain=(0.1, 100.0), missing="skip")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        weighting: str = "mean",
        tau: float = 1.0,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.tau = check_positive("tau, the temperature,", tau)
        self.keep_weighting(weighting, ("mean", "learned"))

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return both weightings."""
        return [{"dims": [4, 4, 4]}, {"dims": [5, 5, 5], "weighting": "learned", "tau": 0.5}]

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        views = [F.log_softmax(view / self.tau if self.tau != 1 else view, -1) for view in wide(x)]
        if len(views) == 1:
            return views[0].to(x[0].dtype)
        if mask is None and self.weighting == "mean":
            return (logsumexp(views) - math.log(len(x))).to(x[0].dtype)
        logs = self._log_weights(views[0], len(x), mask).split(1, -1)
        return logsumexp([view + log for view, log in zip(views, logs, strict=True)]).to(x[0].dtype)

    _fuse_masked = _fuse

    def _log_weights(self, like: Tensor, k: int, mask: Tensor | None) -> Tensor:
        """Return the log w_i (..., k).  In a row without views all count: each is zeros, whose result is -log c."""
        scores = self.weight.to(like.dtype) if self.weighting == "learned" else like.new_zeros(k)
        if mask is None:
            return scores.log_softmax(-1)
        counts = mask | mask.any(-1, keepdim=True).logical_not()
        return torch.where(counts, scores, -torch.inf).log_softmax(-1)

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        scores = self.weight if self.weighting == "learned" else x[0].new_zeros(len(x))
        scores = scores.to(x[0].dtype).expand(*x[0].shape[:-1], len(x))
        return {"output": self._fuse(x, mask), "weights": masked_softmax(scores, mask)}
