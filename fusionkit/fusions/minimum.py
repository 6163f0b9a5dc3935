"""Least of the views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import Fusion, Traits
from fusionkit.kernels.elementwise import large_blocks, select
from fusionkit.kernels.modes import supports_out_kernels


class Minimum(Fusion):
    """``min(A_1, ..., A_k)``, entry by entry, of k views of equal width, (..., n) each -> (..., n); l = 0.

    The gradient of an entry is shared evenly by the views that attain it.  NaN in any view gives NaN.
    """

    traits = Traits(permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True)

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the common width of the views."""
        return self.resolve_equal_dims(dims)

    def calculate_l(self) -> int:
        """Return 0."""
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return select(_least, x)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Take the minimum of a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).amin(0)


def _least(x: Sequence[Tensor]) -> Tensor:
    if not supports_out_kernels(x):
        out = x[0]
        for view in x[1:]:
            out = torch.minimum(out, view)
        return out
    out = torch.empty_like(x[0])
    for block, (first, second, *rest) in large_blocks(x, out):
        torch.minimum(first, second, out=block)
        for view in rest:
            torch.minimum(block, view, out=block)
    return out
