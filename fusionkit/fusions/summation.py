"""Sum of the views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits, in_place_ok


class Summation(ElementwiseFusion):
    """``A_1 + A_2 + ... + A_k`` of k views of equal width, (..., n) each -> (..., n); l = 0."""

    traits = Traits(missing="skip", permutation_invariant=True, linear=True, batch_independent=True, monotone=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if len(x) == 1:
            return x[0].clone()
        out = x[0] + x[1]
        in_place = in_place_ok(x)
        for view in x[2:]:
            out = out.add_(view) if in_place else out + view
        return out

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Sum a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).sum(0)
