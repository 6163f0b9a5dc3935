"""Greatest of the views."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits
from fusionkit.kernels.elementwise import large_blocks, select
from fusionkit.kernels.modes import supports_out_kernels


class Maximum(ElementwiseFusion):
    """``max(A_1, ..., A_k)``, entry by entry, of k views of equal width, (..., n) each -> (..., n); l = 0.

    The gradient of an entry is shared evenly by the views that attain it.  NaN in any view gives NaN.
    """

    traits = Traits(
        permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True, missing="skip"
    )
    fill = -math.inf

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return select(_greatest, x)

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        # 0 in a row without any view.
        return select(_greatest, x, mask)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Take the maximum of a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).amax(0)


def extreme(operation: Callable[..., Tensor], x: Sequence[Tensor]) -> Tensor:
    """Reduce the views by ``torch.maximum`` or ``torch.minimum``, (..., n) each -> (..., n)."""
    if not supports_out_kernels(x):
        return functools.reduce(operation, x)
    out = torch.empty_like(x[0])
    for block, (first, second, *rest) in large_blocks(x, out):
        operation(first, second, out=block)
        for view in rest:
            operation(block, view, out=block)
    return out


_greatest = functools.partial(extreme, torch.maximum)
