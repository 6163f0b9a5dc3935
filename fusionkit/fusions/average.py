"""Mean of the views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits, in_place_ok


class Average(ElementwiseFusion):
    """``(A_1 + A_2 + ... + A_k) / k`` of k views of equal width, (..., n) each -> (..., n); l = 0."""

    traits = Traits(
        permutation_invariant=True, linear=True, batch_independent=True, idempotent=True, convex=True, monotone=True
    )

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        # Scale each view before adding it: in float16 the sum can overflow although the mean is finite.
        scale = 1 / len(x)
        out = x[0] * scale
        in_place = in_place_ok(x)
        for view in x[1:]:
            out = out.add_(view, alpha=scale) if in_place else out.add(view, alpha=scale)
        return out

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Average a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).mean(0)
