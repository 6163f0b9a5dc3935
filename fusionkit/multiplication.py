"""The product of a concatenation of views with a matrix, without the concatenation where that pays.

On the CPU in eager mode small concatenations are multiplied at once, the others view by view, accumulating in place;
row blocks keep narrow views, or a wide result, in the cache.  The bounds are of the order of what two cores with
AVX-512 showed.  While compiling the way depends on the widths alone: a choice by batch size would break an export with
a dynamic batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionkit.elementwise import plain, recording
from fusionkit.fusion import autocasting

__all__ = ["joined_rows", "linear"]

#: Views of up to so many elements on average are concatenated: copying them costs less than launching products.
SMALL_VIEW = 2**13
#: A concatenation of up to so many elements is made if the rows are too few for products per view to be efficient.
CONCATENATE_ELEMENTS = 2**20
#: Neighbouring narrow views are joined up to this many columns.
JOIN_COLUMNS = 512
#: In bfloat16 and float16 every partial sum is rounded; with more of them the error shows.
HALF_PARTIAL_SUMS = 16
#: Elements of a row block, of the view or the result, whichever is wider.
BLOCK_ELEMENTS = 2**19
#: Views up to this width are copied block by block before they are multiplied by up to so many columns: a product that
#: thin waits for memory, and reads scattered rows slower than a copy does.
COPIED_WIDTH, COPIED_N = 64, 32
#: Up to so many columns for up to so many rows are computed as the transpose: MKL has wider kernels for that.
TRANSPOSED_N, TRANSPOSED_ROWS = 8, 1024


def linear(x: Sequence[Tensor], W: Tensor) -> Tensor:
    """Return concat(x) @ W.T, x: views (..., n_i), W: (n, D) -> (..., n)."""
    first = x[0]
    k = len(x)
    if k == 1:
        return F.linear(first, W)
    n, D = W.shape
    rows = first.numel() // first.shape[-1]
    traced = type(rows) is not int or torch.compiler.is_compiling()
    if not traced:
        elements = rows * D
        if elements <= SMALL_VIEW * k or (elements <= CONCATENATE_ELEMENTS and rows < _enough_rows(x, W)):
            return F.linear(torch.cat(tuple(x), -1), W)
    casting = autocasting(first.device)
    half = W.dtype in (torch.bfloat16, torch.float16) or casting
    # Dynamo traces into a cache and warns of it.
    grouping = _groups.__wrapped__ if traced else _groups
    groups = grouping(tuple([view.shape[-1] for view in x]), n, HALF_PARTIAL_SUMS if half else None)
    joined = [joined_rows(x[a:b]) for a, b in groups] if len(groups) < k or first.ndim != 2 else x
    if traced or casting or not plain((W, *x)):
        pieces = W.t().split([rows_of_group.shape[-1] for rows_of_group in joined])
        out = torch.mm(joined[0], pieces[0])
        for rows_of_group, piece in zip(joined[1:], pieces[1:], strict=True):
            out = torch.addmm(out, rows_of_group, piece)
    elif recording((W, *x)):
        out = _Product.apply(W, *joined)  # type: ignore[no-untyped-call]
    else:
        out = _product(W, joined)
    return out if first.ndim == 2 else out.view(*first.shape[:-1], n)


def _enough_rows(x: Sequence[Tensor], W: Tensor) -> float:
    """Return from how many rows on products per view beat one with the concatenation."""
    if not W.is_cpu:
        return float("inf")
    n = W.shape[0]
    return max(256, n + 1) if recording((W, *x)) else n / 4


def joined_rows(views: Sequence[Tensor]) -> Tensor:
    """Return the concatenation of the views as a matrix; one view is not copied."""
    view = views[0] if len(views) == 1 else torch.cat(tuple(views), -1)
    return view.reshape(-1, view.shape[-1])


@lru_cache(maxsize=4096)
def _groups(widths: tuple[int, ...], n: int, most: int | None) -> list[tuple[int, int]]:
    """Return the ranges of views to be multiplied together: narrow neighbours joined, at most ``most`` ranges."""
    limit = JOIN_COLUMNS
    narrow = n / 4
    while True:
        groups: list[tuple[int, int]] = []
        columns = 0
        for i, width in enumerate(widths):
            if groups and width < narrow and widths[i - 1] < narrow and columns + width <= limit:
                groups[-1] = (groups[-1][0], i + 1)
                columns += width
            else:
                groups.append((i, i + 1))
                columns = width
        if most is None or len(groups) <= most:
            return groups
        # Too many partial sums: join wider views, into wider groups.
        narrow = float("inf")
        limit = max(limit + 1, -(-sum(widths) // most)) if limit == JOIN_COLUMNS else limit * 2


def _product(W: Tensor, x: Sequence[Tensor]) -> Tensor:
    """Return concat(x) @ W.T, x: matrices (m, n_i) -> (m, n); records no gradient."""
    n, m = W.shape[0], x[0].shape[0]
    widths = [rows.shape[1] for rows in x]
    if W.is_cpu and 1 < n <= TRANSPOSED_N and m <= TRANSPOSED_ROWS:
        pieces = W.split(widths, 1)
        out = torch.mm(pieces[0], x[0].t())
        for rows, piece in zip(x[1:], pieces[1:], strict=True):
            out.addmm_(piece, rows.t())
        return out.t().contiguous()
    pieces = W.t().split(widths)
    widest = max(widths)
    copied = n <= COPIED_N and n < widest <= COPIED_WIDTH
    block = max(1, BLOCK_ELEMENTS // max(n, widest))
    if not W.is_cpu or m < 2 * block or not (copied or n > widest):
        out = torch.mm(x[0], pieces[0])
        for rows, piece in zip(x[1:], pieces[1:], strict=True):
            out.addmm_(rows, piece)
        return out
    out = x[0].new_empty(m, n)
    scratch = x[0].new_empty(block * widest if copied else 0)
    # Everything that can be is cut before the loop, whose body is short enough for the cutting to show.
    copies = [scratch[: block * width].view(block, width) for width in widths] if copied else []
    for part, *views in zip(out.split(block), *(rows.split(block) for rows in x), strict=True):
        if copied:
            size = part.shape[0]
            buffers = copies if size == block else [buffer[:size] for buffer in copies]
        for i, (view, piece) in enumerate(zip(views, pieces, strict=True)):
            factor = buffers[i].copy_(view) if copied else view
            if i:
                part.addmm_(factor, piece)
            else:
                torch.mm(factor, piece, out=part)
    return out


class _Product(torch.autograd.Function):
    """``_product`` with its derivative, which writes the gradient of W in one piece."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, *x: Tensor) -> Tensor:
        ctx.save_for_backward(W, *x)
        return _product(W, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (W, *x), (grad,), (needs_W, *needs_x) = ctx.saved_tensors, grads, ctx.needs_input_grad
        widths = [rows.shape[1] for rows in x]
        pieces = W.split(widths, 1)
        grad = grad.contiguous()  # An expanded gradient would be copied by every product.
        of_x = [grad @ piece if needed else None for piece, needed in zip(pieces, needs_x, strict=True)]
        if not needs_W:
            return None, *of_x
        # When it is differentiated itself, or transformed, out of place.
        if torch.is_grad_enabled() or autocasting(grad.device) or not plain((grad, W, *x)):
            return torch.cat([grad.t() @ rows for rows in x], 1), *of_x
        of_W = torch.empty_like(W, memory_format=torch.contiguous_format)
        for rows, part in zip(x, of_W.split(widths, 1), strict=True):
            torch.mm(grad.t(), rows, out=part)
        return of_W, *of_x
