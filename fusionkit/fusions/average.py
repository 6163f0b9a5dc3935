"""Mean of the views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits, in_place_ok, present_count


class Average(ElementwiseFusion):
    """``(A_1 + A_2 + ... + A_k) / k`` of k views of equal width, (..., n) each -> (..., n); l = 0."""

    traits = Traits(
        permutation_invariant=True,
        linear=True,
        batch_independent=True,
        idempotent=True,
        convex=True,
        monotone=True,
        missing="skip",
    )

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        # Scale each view before adding it: in float16 the sum can overflow although the mean is finite.
        scale = 1 / len(x)
        out = x[0] * scale
        in_place = in_place_ok(x)
        for view in x[1:]:
            out = out.add_(view, alpha=scale) if in_place else out.add(view, alpha=scale)
        return out

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        # Over the present views; 0 in a row without any.
        dtype = x[0].dtype
        wide = torch.promote_types(dtype, torch.float32)
        scale = present_count(mask, wide).reciprocal()
        out = x[0].to(wide) * scale
        in_place = in_place_ok((mask, *x))
        for view in x[1:]:
            out = out.addcmul_(view, scale) if in_place else torch.addcmul(out, view, scale)
        return out.to(dtype)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Average a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).mean(0)
