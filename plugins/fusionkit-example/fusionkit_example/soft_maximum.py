"""A smooth maximum of the views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log
from typing import Any, Unpack

import fusionkit
import torch
from fusionkit.fusion import ElementwiseFusion, FusionOptions
from torch import Tensor


class SoftMaximum(ElementwiseFusion):
    """`t * log((exp(A_1 / t) + ... + exp(A_k / t)) / k)` of k views of equal width, (..., n) each -> (..., n); l = 0.

    Near the maximum for small t, near the mean for large t.

    Args:
        temperature: t, positive.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = fusionkit.Traits(
        permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True
    )

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
