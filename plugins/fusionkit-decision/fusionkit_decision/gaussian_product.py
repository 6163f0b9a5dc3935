"""The product of Gaussian experts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit.fusion import FusionOptions, Traits, check_flag
from torch import Tensor

from fusionkit_decision.base import GaussianFusion, ViewWeights, added, exponentials, greatest, weighted_sum, wide


class GaussianProduct(ViewWeights, GaussianFusion):
    """`mu = sum_i softmax_i(t_i) ∘ mu_i`, `lv = -logsumexp_i t_i` with `t_i = log a_i - lv_i`.

    Views [mu_i; lv_i] (..., 2d) each -> [mu; lv] (..., 2d), means and logarithms of variances.  The experts `N(mu_i,
    exp(lv_i) / a_i)`, one per view and coordinate, multiplied and normalized: precisions add up.  l = 0, or k with
    learned log a_i.  One view is returned with lv_1 - log a_1.  A row without any view gives 0, the N(0, 1) of the
    prior.  Source: Wu and Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning", 2018,
    section 2.1; a_i: Cao and Fleet, "Generalized Product of Experts for Automatic and Principled Fusion of Gaussian
    Process Predictions", 2014.

    ``explain`` adds `gates` (..., k, d), the share of each view in the precision, and `weights` (..., k), their means
    over the coordinates.  With a prior they add up to less than 1.

    Args:
        weighting: "one" (a_i = 1) or "learned" (the parameter ``weight`` (k,) is log a_i; it starts at 0).
        prior: whether N(0, 1) is one more expert.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(batch_independent=True, constant_init=True, init_gain=(0.05, 10.0), missing="skip")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        weighting: str = "one",
        prior: bool = False,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.prior = check_flag("prior", prior)
        self.keep_weighting(weighting, ("one", "learned"))

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return both weightings, without and with a prior."""
        return [
            {"dims": [4, 4, 4]},
            {"dims": [6, 6], "prior": True},
            {"dims": [4, 4, 4], "weighting": "learned"},
            {"dims": [2, 2], "weighting": "learned", "prior": True},
        ]

    def _product(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the result (..., 2d), the precisions (..., d) of the views, and their sum, all to one scale."""
        halves = [view.chunk(2, -1) for view in wide(x)]
        mus, logs = [mu for mu, _ in halves], [-lv for _, lv in halves]
        if self.weighting == "learned":
            logs = [log + a for log, a in zip(logs, self.weight.to(logs[0].dtype).unbind(), strict=True)]
        if mask is not None:
            logs = [torch.where(column, log, -torch.inf) for log, column in zip(logs, mask.split(1, -1), strict=True)]
        if self.prior:
            mus, logs = [*mus, torch.zeros_like(mus[0])], [*logs, torch.zeros_like(logs[0])]
        shift = greatest(logs)
        precisions = exponentials(logs, shift)
        total = added(precisions)
        if mask is not None and not self.prior:
            empty = mask.any(-1, keepdim=True).logical_not()
            shift, total = torch.where(empty, 0.0, shift), torch.where(empty, 1.0, total)
        # Around the mean itself, held fixed, the gradient of the precisions has no large terms that cancel.
        still = [mu.detach() for mu in mus], [precision.detach() for precision in precisions]
        center = weighted_sum(*still) / total.detach()
        mean = center + weighted_sum([mu - center for mu in mus], precisions) / total
        return torch.cat([mean, -(shift + total.log())], -1).to(x[0].dtype), precisions[: len(x)], total

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._product(x, mask)[0]

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        out, precisions, total = self._product(x, mask)
        gates = torch.stack([precision / total for precision in precisions], -2).to(out.dtype)
        return {"output": out, "gates": gates, "weights": gates.mean(-1)}
