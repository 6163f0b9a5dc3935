"""Least of the views."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits
from fusionkit.fusions.maximum import extreme
from fusionkit.kernels.elementwise import select


class Minimum(ElementwiseFusion):
    """``min(A_1, ..., A_k)``, entry by entry, of k views of equal width, (..., n) each -> (..., n); l = 0.

    The gradient of an entry is shared evenly by the views that attain it.  NaN in any view gives NaN.
    """

    traits = Traits(
        permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True, missing="skip"
    )
    fill = math.inf

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return select(_least, x)

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        # 0 in a row without any view.
        return select(_least, x, mask)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Take the minimum of a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).amin(0)


_least = functools.partial(extreme, torch.minimum)
