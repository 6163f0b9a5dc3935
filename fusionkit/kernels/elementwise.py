"""What the elementwise fusions share: accumulation block by block, and the derivative of "one of the views".

In eager mode k views are combined block by block: partial results stay in the cache, no copy of the views is stacked.
While compiling or exporting, inside functorch transforms, under forward-mode differentiation and on tensor subclasses
the same values come from out-of-place operations on whole views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from fusionkit.kernels.modes import recording, supports_out_kernels

#: Elements of a block: those of eight views fit in the cache, and the overhead per operation is small.
BLOCK = 2**17
#: Elements of a block where every view is read once: the result stays in the outer cache, and long runs of a view are
#: read a fifth faster than short ones.
LARGE_BLOCK = 2**22

#: The integers with as many bytes as the numbers of a view.
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

Derivative = Callable[[Tensor, Tensor, Sequence[Tensor]], Sequence[Tensor]]


def blocks(x: Sequence[Tensor], out: Tensor, elements: int = BLOCK) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield blocks of ``out`` with those of the views, all of the same shape; a single one if not on the CPU."""
    tensors = (out, *x)
    if out.device.type != "cpu" or not out.ndim or out.numel() <= elements:
        yield out, tuple(x)
        return
    if all(tensor.is_contiguous() for tensor in tensors):
        pieces = [tensor.view(-1).split(elements) for tensor in tensors]
    else:
        rows = max(1, elements * out.shape[0] // out.numel())
        pieces = [tensor.split(rows) for tensor in tensors]
    for block, *views in zip(*pieces, strict=True):
        yield block, tuple(views)


def large_blocks(x: Sequence[Tensor], out: Tensor) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield large blocks of ``out`` with those of the views."""
    return blocks(x, out, LARGE_BLOCK)


class _WithBackward(torch.autograd.Function):
    """A fusion with a closed-form derivative, itself made of differentiable operations."""

    @staticmethod
    def forward(ctx: Any, combine: Callable[[Sequence[Tensor]], Tensor], derivative: Derivative, *x: Tensor) -> Tensor:
        out = combine(x)
        ctx.derivative = derivative
        ctx.save_for_backward(out, *x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        out, *x = ctx.saved_tensors
        return None, None, *ctx.derivative(grads[0], out, x)


def with_backward(combine: Callable[[Sequence[Tensor]], Tensor], derivative: Derivative, x: Sequence[Tensor]) -> Tensor:
    """Return ``combine(x)``, whose gradients for the views are ``derivative(gradient of the result, result, views)``.

    Only where ``supports_out_kernels(x)``: torch.compile and functorch cannot look into it.
    """
    result: Tensor = _WithBackward.apply(combine, derivative, *x) if recording(x) else combine(x)  # type: ignore[no-untyped-call]
    return result


def select(combine: Callable[[Sequence[Tensor]], Tensor], x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Return ``combine(x)`` where that picks one of the views, entry by entry, as do maximum, minimum and median.

    The gradient of an entry is shared evenly by the views that have its value, whatever their number (a chain of
    ``torch.maximum`` would prefer the last one); it is 0 where the entry is NaN.  With a mask (..., k) by those that
    are present, and a row without any is 0.
    """
    if len(x) == 1:
        return _or_zero(x[0].clone(), mask)
    if supports_out_kernels(x) and (mask is None or not recording(x)):
        return _or_zero(with_backward(combine, _shares, x), mask)
    # Inside torch.compile up to 2.11 is_exporting says yes.
    if torch.compiler.is_exporting() and not is_dynamo_compiling():
        return _or_zero(combine(x), mask)
    with torch.no_grad():
        still = [view.detach() for view in x]
        out = combine(still)
        chosen, ties = _chosen(out, still, mask)
        out = _or_zero(out, mask)
    # Zeros with the derivative of the views; an infinite view itself, which changes an equal result as little.
    moves = [torch.where(fixed.isinf(), view, view - fixed) for view, fixed in zip(x, still, strict=True)]
    for picked, move in zip(chosen, moves, strict=True):
        out = out + torch.where(picked, move, 0.0) / ties
    return out


def _or_zero(out: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``out`` with zeros in the rows without a present view."""
    return out if mask is None else torch.where(mask.any(-1, keepdim=True), out, 0.0)


def _chosen(out: Tensor, x: Sequence[Tensor], mask: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
    """Return where each (present) view has the value of ``out``, and the number of views that have it (at least 1)."""
    chosen = [view == out for view in x]
    if mask is not None:
        chosen = [picked & column for picked, column in zip(chosen, mask.split(1, -1), strict=True)]
    ties = chosen[0].to(out.dtype)
    for picked in chosen[1:]:
        ties = ties + picked
    return chosen, ties.clamp(min=1)


def all_finite(x: Tensor) -> bool:
    """Whether all entries of a tensor on the CPU are finite; may be False for huge ones.  False on other devices."""
    return x.is_cpu and bool(x.sum(dtype=torch.promote_types(x.dtype, torch.float32)).isfinite())


def _shares(grad: Tensor, out: Tensor, x: Sequence[Tensor]) -> list[Tensor]:
    # Where the gradient is infinite or NaN, its product with a mask of 0 would be NaN.
    if torch.is_grad_enabled() or not supports_out_kernels((grad, out, *x)) or not all_finite(grad):
        chosen, ties = _chosen(out, x)
        share = grad / ties
        return [torch.where(mask, share, 0.0) for mask in chosen]
    # The masks are written as numbers into the gradients: several times as fast as with booleans.
    k = len(x)
    shares = [torch.empty_like(out) for _ in x]
    scratch = None
    for value, tensors in blocks((grad, *x, *shares), out):
        upstream, views, masks = tensors[0], tensors[1 : k + 1], tensors[k + 1 :]
        scratch = torch.empty_like(value) if scratch is None else scratch[: len(value)]
        ties = scratch.zero_()
        for view, mask in zip(views, masks, strict=True):
            ties.add_(torch.eq(view, value, out=mask))
        share = torch.div(upstream, ties.clamp_(min=1), out=ties)
        for mask in masks:
            mask.mul_(share)
    return shares


def replaced(views: Sequence[Tensor | None], mask: Tensor, fills: Sequence[float | Tensor]) -> list[Tensor | None]:
    """Return the views (..., n_i), each with its fill where its column of the mask (..., k) is False; None stays None.

    Zeros are written by an AND with the bits of 0 or -1: a third of the time of torch.where with a broadcast mask.
    """
    tensors = [view for view in views if view is not None]
    bits = None
    zeros = all(type(fill) is float and fill == 0 for fill in fills)
    if zeros and not recording(tensors) and supports_out_kernels((mask, *tensors)):
        bits = mask.to(BITS[tensors[0].element_size()]).neg_()
    columns = (mask if bits is None else bits).split(1, -1)
    out: list[Tensor | None] = []
    for view, column, fill in zip(views, columns, fills, strict=True):
        if view is None:
            out.append(None)
        elif bits is None:
            out.append(torch.where(column, view, fill))
        else:
            out.append((view.view(bits.dtype) & column).view(view.dtype))
    return out
