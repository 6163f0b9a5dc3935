"""Euclidean norm over the views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits
from fusionkit.kernels.elementwise import all_finite, large_blocks, with_backward
from fusionkit.kernels.modes import supports_out_kernels

HALF = (torch.float16, torch.bfloat16)


class L2Norm(ElementwiseFusion):
    """``sqrt(A_1^2 + ... + A_k^2)``, entry by entry, of k views of equal width, (..., n) each -> (..., n); l = 0.

    The derivative at 0 is taken as 0.  Entries whose squares would overflow or underflow are first scaled by the
    greatest of the views, as in Blue, "A portable Fortran program to find the Euclidean norm of a vector", 1978.
    """

    traits = Traits(permutation_invariant=True, batch_independent=True, missing="skip")

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        dtype = x[0].dtype
        if dtype in HALF:
            x = [view.float() for view in x]
        fast = None
        if supports_out_kernels(x):
            fast = _norm if x[0].is_cpu else _wide_norm if x[0].is_cuda and x[0].dtype == torch.float32 else None
        return (with_backward(fast, _derivative, x) if fast else _scaled_norm(x)).to(dtype)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Take the norm of a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).square().sum(0).sqrt()


def _scaled_norm(x: Sequence[Tensor]) -> Tensor:
    """Return the norm with every entry scaled by the greatest of the views; any magnitude, all derivatives."""
    tiny = torch.finfo(x[0].dtype).tiny
    with torch.no_grad():
        # The scale is constant for the derivatives, which is exact, since the norm does not depend on it.
        scale = x[0].detach().abs()
        for view in x[1:]:
            scale = torch.maximum(scale, view.detach().abs())
        zero = scale == 0
        scale = scale.clamp(tiny, 1 / tiny)
        inverse = scale.reciprocal()
    squares = (x[0] * inverse).square()
    for view in x[1:]:
        squares = squares + (view * inverse).square()
    # Take the root of 1 instead of 0, because its derivative is finite; the outer ``where`` multiplies it by 0.
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt() * scale)


def _wide_norm(x: Sequence[Tensor]) -> Tensor:
    """Return the norm of float32 views, with squares in float64, where none can overflow or underflow."""
    squares = x[0].double().square_()
    for view in x[1:]:
        squares.addcmul_(view, view)
    return squares.sqrt_().to(x[0].dtype)


def _norm(x: Sequence[Tensor]) -> Tensor:
    """Return the norm by one pass over the squares; entries outside the safe range are computed again, scaled."""
    info = torch.finfo(x[0].dtype)
    # Below this a square may be subnormal, with too few digits.
    safe = info.tiny / info.eps
    out = torch.empty_like(x[0])
    for block, views in large_blocks(x, out):
        torch.mul(views[0], views[0], out=block)
        for view in views[1:]:
            block.addcmul_(view, view)
        again = None
        if block.numel():
            least, greatest = block.aminmax()
            if not (least >= safe and greatest <= info.max):
                again = (block >= safe).logical_and_(block <= info.max).logical_not_().nonzero(as_tuple=True)
        block.sqrt_()
        if again is not None:
            block[again] = _scaled_norm([view[again] for view in views])
    return out


def _derivative(grad: Tensor, out: Tensor, x: Sequence[Tensor]) -> list[Tensor]:
    # Divide the view by the norm first: that is at most 1, while the gradient over the norm could overflow.
    norm = torch.where(out == 0, 1.0, out)
    if torch.is_grad_enabled() or not supports_out_kernels((grad, out, *x)):
        return [view / norm * torch.where(out == 0, 0.0, grad) for view in x]
    if all_finite(grad) and all_finite(out):
        return [(view / norm).mul_(grad) for view in x]
    # The norm of finite views may overflow; scaled by this, it does not.
    huge, scale = out.isinf(), 2.0 ** -len(x).bit_length()
    x = [torch.where(huge, view * scale, view) for view in x]
    norm = torch.where(huge, _scaled_norm(x), norm)
    return [(view / norm).mul_(torch.where(out == 0, 0.0, grad)) for view in x]
