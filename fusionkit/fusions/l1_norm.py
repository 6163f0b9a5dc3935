"""Sum of the absolute values of the views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits, in_place_ok
from fusionkit.kernels.elementwise import BLOCK, blocks
from fusionkit.kernels.modes import recording, supports_out_kernels


class L1Norm(ElementwiseFusion):
    """``|A_1| + ... + |A_k|``, entry by entry, of k views of equal width, (..., n) each -> (..., n); l = 0.

    The derivative of ``|a|`` at 0 is taken as 0.  Half precision is added up in float32.
    """

    traits = Traits(permutation_invariant=True, batch_independent=True, missing="skip")

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        dtype = x[0].dtype
        half = dtype in (torch.float16, torch.bfloat16)
        if not half and supports_out_kernels(x) and not recording(x):
            out = torch.empty_like(x[0])
            scratch = None
            # Two operations per view need larger blocks, to keep the overhead of their calls small.
            for block, (first, *rest) in blocks(x, out, 2 * BLOCK):
                torch.abs(first, out=block)
                scratch = torch.empty_like(block) if scratch is None else scratch[: len(block)]
                for view in rest:
                    block.add_(torch.abs(view, out=scratch))
            return out
        out = x[0].float().abs() if half else x[0].abs()
        in_place = in_place_ok(x)
        for view in x[1:]:
            out = out.add_(view.abs()) if in_place else out + view.abs()
        return out.to(dtype)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Sum a stacked float64 copy of the absolute values."""
        return torch.stack([view.double() for view in x]).abs().sum(0)
