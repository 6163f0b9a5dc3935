"""Product of the views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits
from fusionkit.kernels.elementwise import large_blocks
from fusionkit.kernels.modes import recording, supports_out_kernels

#: The dtype of partial products in half precision, so that none overflows unless the product does.
WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float64}


class Product(ElementwiseFusion):
    """``A_1 * A_2 * ... * A_k``, entry by entry, of k views of equal width, (..., n) each -> (..., n); l = 0.

    The gradients are exact also where views are 0.  Half precision is multiplied in a wider dtype.
    """

    traits = Traits(permutation_invariant=True, batch_independent=True, missing="skip")
    fill = 1.0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if len(x) == 1:
            return x[0].clone()
        dtype = x[0].dtype
        if dtype not in WIDE and supports_out_kernels(x) and not recording(x):
            out = torch.empty_like(x[0])
            for block, (first, second, *rest) in large_blocks(x, out):
                torch.mul(first, second, out=block)
                for view in rest:
                    block.mul_(view)
            return out
        # Not in place: the gradients need every partial product.
        out = x[0].to(WIDE.get(dtype, dtype))
        for view in x[1:]:
            out = out * view
        return out.to(dtype)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Multiply a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).prod(0)
