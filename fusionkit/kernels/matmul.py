"""The product of a concatenation of views with a matrix, without the concatenation where that pays.

In eager mode small concatenations are multiplied at once, the others view by view, accumulating in place; on the CPU
row blocks keep a large result in the cache.  The bounds are of the order of what two cores with
AVX-512 showed.  While compiling the way depends on the widths alone: a choice by batch size would break an export with
a dynamic batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from math import gcd
from typing import Any

import torch
from torch import Tensor, cat
from torch.compiler import is_dynamo_compiling
from torch.nn.functional import linear as multiplied

from fusionkit.kernels.modes import autocasting, recording, supports_out_kernels

__all__ = ["PIECE_ELEMENTS", "block_products", "cutting_pays", "joined_rows", "linear", "padded"]

#: Views of up to so many elements on average are concatenated: copying them costs less than launching products.
SMALL_VIEW = 2**13
#: A concatenation of up to so many elements is made if the rows are too few for products per view to be efficient.
CONCATENATE_ELEMENTS = 2**20
#: On a GPU one is made of up to so many elements per product that it saves: they are copied while one is launched.
LAUNCHED_VIEW = 2**21
#: Neighbouring narrow views are joined up to this many columns.
JOIN_COLUMNS = 512
#: In bfloat16 and float16 every partial sum is rounded; with more of them the error shows.
HALF_PARTIAL_SUMS = 16
#: A result of at least so many elements, wider than the views, if they are narrower than so many columns, is computed
#: in row blocks of so many elements, but at least so many rows: adding to it from main memory would show.
LARGE_RESULT, WIDE = 2**23, 128
BLOCK_ELEMENTS, BLOCK_ROWS = 2**19, 2048
#: The arguments of the convolutions that ``_streamed`` calls.
CONVOLUTION_ARGUMENTS = [
    "X W B padding stride dilation groups attr scalars algorithm",
    "other X W B padding stride dilation groups binary_attr alpha unary_attr unary_scalars unary_algorithm",
]
#: Products with up to so many columns are accumulated by oneDNN if there are at least so many elements of all views and
#: of each, and columns of each: they wait for memory, which it reads a fifth faster than MKL.
STREAMED_N, STREAMED, STREAMED_VIEW, STREAMED_WIDTH = 64, 2**23, 2**21, 64
#: Into how many images ``_streamed`` divides the rows at most.
IMAGES = 4
#: Up to so many columns for up to so many rows are computed as the transpose: MKL has wider kernels for that.
TRANSPOSED_N, TRANSPOSED_ROWS = 8, 1024
#: Views are multiplied in the pieces into which column blocks cut them, instead of joined, from so many elements per
#: piece on.
PIECE_ELEMENTS = 2**16


def linear(x: Sequence[Tensor], W: Tensor) -> Tensor:
    """Return concat(x) @ W.T, x: views (..., n_i), W: (n, D) -> (..., n)."""
    first = x[0]
    k = len(x)
    if k == 1:
        return multiplied(first, W)
    n, D = W.shape
    rows = first.numel() // first.shape[-1]
    # Other compilers show a batch that may vary as a symbol.
    traced = type(rows) is not int or is_dynamo_compiling()
    if not traced:
        elements = rows * D
        if elements <= SMALL_VIEW * k or _joining_pays(x, W, rows, elements):
            return multiplied(cat(tuple(x), -1), W)
    casting = autocasting(first.device)
    half = W.dtype in (torch.bfloat16, torch.float16) or casting
    # Dynamo traces into a cache and warns of it.
    grouping = _groups.__wrapped__ if traced else _groups
    groups = grouping(tuple([view.shape[-1] for view in x]), n, HALF_PARTIAL_SUMS if half else None)
    joined = [joined_rows(x[a:b]) for a, b in groups] if len(groups) < k or first.ndim != 2 else x
    if traced or casting or not supports_out_kernels((W, *x)):
        pieces = W.t().split([rows_of_group.shape[-1] for rows_of_group in joined])
        out = torch.mm(joined[0], pieces[0])
        for rows_of_group, piece in zip(joined[1:], pieces[1:], strict=True):
            out = torch.addmm(out, rows_of_group, piece)
    elif recording((W, *x)):
        out = _Product.apply(W, *joined)  # type: ignore[no-untyped-call]
    else:
        out = _product(W, joined)
    return out if first.ndim == 2 else out.view(*first.shape[:-1], n)


def _joining_pays(x: Sequence[Tensor], W: Tensor, rows: int, elements: int) -> bool:
    """Tell whether a concatenation of so many elements is quicker than products per view."""
    if W.is_cuda:
        products = 3 if recording((W, *x)) else 1
        return elements <= LAUNCHED_VIEW * products * (len(x) - 1)
    if elements > CONCATENATE_ELEMENTS:
        return False
    n = W.shape[0]
    return not W.is_cpu or rows < (max(256, n + 1) if recording((W, *x)) else n / 4)


def joined_rows(views: Sequence[Tensor]) -> Tensor:
    """Return the concatenation of the views as a matrix; one view is not copied."""
    view = views[0] if len(views) == 1 else cat(tuple(views), -1)
    return view.reshape(-1, view.shape[-1])


def padded(x: Sequence[Tensor], width: int) -> Tensor:
    """Return the concatenation of the views, zeros on its right, as rows (m, width)."""
    missing = width - sum(view.shape[-1] for view in x)
    if missing:
        x = [*x, x[0].new_zeros(()).expand(*x[0].shape[:-1], missing)]
    return joined_rows(x)


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
    if n <= STREAMED_N and m * sum(widths) >= STREAMED and _streamable((W, *x)):
        return _streamed(W.split(widths, 1), x)
    pieces = W.t().split(widths)
    if not W.is_cpu or m * n < LARGE_RESULT or max(widths) >= min(n, WIDE):
        out = torch.mm(x[0], pieces[0])
        for rows, piece in zip(x[1:], pieces[1:], strict=True):
            out.addmm_(rows, piece)
        return out
    out = x[0].new_empty(m, n)
    block = max(BLOCK_ROWS, BLOCK_ELEMENTS // n)
    for part, *views in zip(out.split(block), *(rows.split(block) for rows in x), strict=True):
        torch.mm(views[0], pieces[0], out=part)
        for view, piece in zip(views[1:], pieces[1:], strict=True):
            part.addmm_(view, piece)
    return out


@cache
def _convolutions() -> tuple[Any, Any] | None:
    """Return oneDNN's convolution and the one that adds to a tensor in place, or None where torch has them not so.

    They are what torch.compile's CPU backend calls.  Only with AVX-512, where they were measured: elsewhere they may be
    reference implementations.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return None
    try:
        first, add = torch.ops.mkldnn._convolution_pointwise.default, torch.ops.mkldnn._convolution_pointwise_.binary
        names = [" ".join(argument.name for argument in operation._schema.arguments) for operation in (first, add)]
    except (AttributeError, RuntimeError):
        return None
    return (first, add) if names == CONVOLUTION_ARGUMENTS else None


def _streamable(tensors: Sequence[Tensor]) -> bool:
    """Tell whether ``_streamed`` takes W and the views."""
    return (
        _convolutions() is not None
        and torch._C._get_mkldnn_enabled()
        and all(
            rows.is_cpu
            and rows.dtype == torch.float32
            and rows.is_contiguous()
            and rows.numel() >= STREAMED_VIEW
            and rows.shape[1] >= STREAMED_WIDTH
            for rows in tensors[1:]
        )
    )


def _streamed(pieces: Sequence[Tensor], x: Sequence[Tensor]) -> Tensor:
    """Return the sum of x_i @ pieces_i.T, (m, n_i) and (n, n_i) -> (m, n).

    A row is a pixel with n_i channels, the products are convolutions with a kernel of one pixel.
    """
    convolutions = _convolutions()
    assert convolutions is not None, "Only for what _streamable takes."
    first, add = convolutions
    geometry = [0, 0], [1, 1], [1, 1], 1
    kernels = [piece[:, :, None, None] for piece in pieces]
    out = first(_pixels(x[0]), kernels[0], None, *geometry, "none", [], None)
    for rows, kernel in zip(x[1:], kernels[1:], strict=True):
        out = add(out, _pixels(rows), kernel, None, *geometry, "add", None, None, [], None)
    image: Tensor = out.permute(0, 2, 3, 1)
    return image.reshape(-1, image.shape[-1])


def _pixels(rows: Tensor) -> Tensor:
    """Return a matrix (m, c) as images (b, c, m/b, 1) with the channels last in memory.

    Several images, where m allows: it takes a tenth less time than one.
    """
    m, c = rows.shape
    b = gcd(m, IMAGES)
    return rows.view(b, m // b, 1, c).permute(0, 3, 1, 2)


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
        if torch.is_grad_enabled() or autocasting(grad.device) or not supports_out_kernels((grad, W, *x)):
            return cat([grad.t() @ rows for rows in x], 1), *of_x
        of_W = torch.empty_like(W, memory_format=torch.contiguous_format)
        for rows, part in zip(x, of_W.split(widths, 1), strict=True):
            torch.mm(grad.t(), rows, out=part)
        return of_W, *of_x


# ---------------------------------------------------------------------- column blocks


def block_products(x: Sequence[Tensor], blocks: Tensor, rows_outermost: bool = False) -> Tensor:
    """Return the products of the column blocks of concat(x), the last one filled up with zeros, with a matrix each.

    Args:
        x: views (..., n_i).
        blocks: (q, c, t), q = ceil(D/t).
        rows_outermost: whether the products of a row lie together in memory, else those of a block.

    Returns:
        (q, m, c).
    """
    q, _, t = blocks.shape
    if not cutting_pays(x, t, (blocks,)):
        products = torch.bmm(padded(x, q * t).view(-1, q, t).transpose(0, 1), blocks.mT)
        return products.transpose(0, 1).contiguous().transpose(0, 1) if rows_outermost else products
    rows = [joined_rows([view]) for view in x]
    apply = _BlockProducts.apply if recording((blocks, *x)) else _block_products
    cut: Tensor = apply(rows_outermost, blocks, *rows)
    return cut


def cutting_pays(x: Sequence[Tensor], t: int, factors: Sequence[Tensor]) -> bool:
    """Tell whether views are multiplied in the pieces into which column blocks of width t cut them, not joined."""
    first = x[0]
    rows = first.numel() // first.shape[-1]
    if (
        not first.is_cpu
        or type(rows) is not int
        or not supports_out_kernels((*factors, *x))
        or autocasting(first.device)
    ):
        return False
    widths = [view.shape[-1] for view in x]
    pieces = len(x) + -(-sum(widths) // t) - 1
    return rows * sum(widths) >= PIECE_ELEMENTS * pieces


def _cut(rows: Tensor, first: int, t: int) -> Iterator[tuple[Tensor, int, int, int]]:
    """Yield the pieces of a view (m, n_i) that starts at column ``first``, with the block and its columns of each."""
    last = first + rows.shape[1]
    bounds = [first, *range((first // t + 1) * t, last, t), last]
    pieces = rows.split([b - a for a, b in pairwise(bounds)], 1)
    for piece, bound in zip(pieces, bounds, strict=False):
        block, start = divmod(bound, t)
        yield piece, block, start, start + piece.shape[1]


def _firsts(x: Sequence[Tensor]) -> Iterator[int]:
    """Return the first column of every view in their concatenation, and the width of that."""
    return accumulate((rows.shape[1] for rows in x), initial=0)


def _block_products(rows_outermost: bool, blocks: Tensor, *x: Tensor) -> Tensor:
    q, c, t = blocks.shape
    m = x[0].shape[0]
    out = x[0].new_empty(m, q, c).transpose(0, 1) if rows_outermost else x[0].new_empty(q, m, c)
    factors, products = blocks.mT.unbind(), out.unbind()
    for rows, first in zip(x, _firsts(x), strict=False):
        for piece, block, start, stop in _cut(rows, first, t):
            factor = factors[block][start:stop]
            if start:
                products[block].addmm_(piece, factor)
            else:
                torch.mm(piece, factor, out=products[block])
    return out


class _BlockProducts(torch.autograd.Function):
    """``_block_products`` with its derivative, which writes the gradient of every view in one piece."""

    @staticmethod
    def forward(ctx: Any, rows_outermost: bool, blocks: Tensor, *x: Tensor) -> Tensor:
        ctx.save_for_backward(blocks, *x)
        return _block_products(rows_outermost, blocks, *x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (blocks, *x), (grad,), (_, needs_blocks, *needs_x) = ctx.saved_tensors, grads, ctx.needs_input_grad
        q, _, t = blocks.shape
        widths = [rows.shape[1] for rows in x]
        # When it is differentiated itself, or transformed, out of place.
        if torch.is_grad_enabled() or autocasting(grad.device) or not supports_out_kernels((grad, blocks, *x)):
            of_rows = (grad @ blocks).transpose(0, 1).reshape(-1, q * t)[:, : sum(widths)]
            return None, grad.mT @ padded(x, q * t).view(-1, q, t).transpose(0, 1), *of_rows.split(widths, 1)
        of_x = [
            torch.empty_like(rows, memory_format=torch.contiguous_format) if needed else None
            for rows, needed in zip(x, needs_x, strict=True)
        ]
        # Columns of the last block that no view has keep their zeros.
        of_blocks = blocks.new_zeros(blocks.shape) if needs_blocks else None
        upstream = grad.unbind()
        for rows, of_rows, first in zip(x, of_x, _firsts(x), strict=False):
            if of_rows is not None:
                for of_piece, block, start, stop in _cut(of_rows, first, t):
                    torch.mm(upstream[block], blocks[block, :, start:stop], out=of_piece)
            if of_blocks is not None:
                for piece, block, start, stop in _cut(rows, first, t):
                    torch.mm(upstream[block].t(), piece, out=of_blocks[block, :, start:stop])
        return None, of_blocks, *of_x
