"""A smooth maximum of the views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, log
from typing import Any, Unpack

import fusionkit
import torch
from fusionkit.fusion import ElementwiseFusion, FusionOptions, present_count
from torch import Tensor


class SoftMaximum(ElementwiseFusion):
    """`t * log((exp(A_1 / t) + ... + exp(A_k / t)) / k)` of k views of equal width, (..., n) each -> (..., n); l = 0.

    Near the maximum for small t, near the mean for large t.

    Args:
        temperature: t, positive.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = fusionkit.Traits(
        permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True, missing="skip"
    )
    fill = -inf  # exp(-inf) = 0: an absent view adds nothing to the sum.

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        temperature: float = 1.0,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        if not temperature > 0:
            raise fusionkit.FusionError(f"temperature should be positive; found {temperature!r}.")
        self.temperature = float(temperature)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return keywords with which the conformance kit builds the operator."""
        return [{"dims": [4, 4, 4]}, {"dims": [3, 3], "temperature": 0.5}]

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        t = self.temperature
        return t * (torch.stack(tuple(x)).div(t).logsumexp(0) - log(len(x)))

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        # The mean over the present views; 0 in a row without any, whose sum is made finite first.
        t, some = self.temperature, mask.any(-1, keepdim=True)
        stack = torch.where(some, torch.stack(tuple(x)), 0.0)
        count = present_count(mask).to(stack.dtype)
        return torch.where(some, t * (stack.div(t).logsumexp(0) - count.log()), 0.0)
