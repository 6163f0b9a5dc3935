"""The product of a concatenation of views with a matrix, without the concatenation where that is quicker.

Few elements are concatenated and multiplied by W at once.  With more, the products of the views with their columns of W
are accumulated in place, narrow neighbours joined first.  While compiling, the path depends on the widths alone: a
choice by batch size would break an export with a dynamic batch.

The gains below were measured with one thread on a CPU with AVX-512, with these instructions and with AVX2 alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, cat
from torch.compiler import is_dynamo_compiling

from fusionkit.kernels.modes import autocasting, in_place_ok, recording

#: How the product is computed: of the concatenation, or view by view.
Path = Literal["joined", "views"]

#: Up to this many elements the views are concatenated: 0.4 of the time of products per view at (64; 8 x 64; 4), 0.7 to
#: 0.8 at (256; 8 x 64; 8).  Larger copies do not fit in the cache: 1.5 times as long at (256; 4 x 512; 8).
CONCATENATE_ELEMENTS = 2**17
#: Neighbouring narrow views are joined up to this many columns: 0.3 of the time of products per view with gradients at
#: (1024; 1000 x 4; 64), and 0.75 of that of the concatenation forward at (1024; 1000 x 8; 64).
JOIN_COLUMNS = 32
#: In bfloat16 and float16 every partial sum is rounded; with more of them the error shows.
HALF_PARTIAL_SUMS = 16
#: On a GPU (H100) the views are concatenated up to this many elements per launch that it saves: copying them takes as
#: long as a launch.
ELEMENTS_PER_LAUNCH = 2**21
#: Launches per view forward and backward (forward alone: 1).
LAUNCHES_WITH_GRADIENTS = 3


def linear(x: Sequence[Tensor], W: Tensor, path: Path | None = None, bias: Tensor | None = None) -> Tensor:
    """Return concat(x) @ W.T + bias, x: views (..., n_i), W: (n, D), bias: (n,) -> (..., n).

    ``path`` "joined" multiplies the concatenation, "views" one view after the other; None is the quicker one.
    """
    first = x[0]
    if len(x) == 1:
        return F.linear(first, W, bias)
    if (path or _quicker_path(x, W)) == "joined":
        return F.linear(cat(tuple(x), -1), W, bias)
    n, D = W.shape
    casting = autocasting(first.device)
    half = casting or W.dtype in (torch.bfloat16, torch.float16)
    rows = _join_narrow(x, max(JOIN_COLUMNS, -(-2 * D // HALF_PARTIAL_SUMS)) if half else JOIN_COLUMNS)
    pieces = W.t().split([part.shape[1] for part in rows])
    out = torch.mm(rows[0], pieces[0]) if bias is None else torch.addmm(bias, rows[0], pieces[0])
    # In place saves 7 to 68 % forward; autocast does not cover in-place products.
    in_place = not casting and in_place_ok((W, *rows))
    for part, piece in zip(rows[1:], pieces[1:], strict=True):
        out = out.addmm_(part, piece) if in_place else torch.addmm(out, part, piece)
    return out if first.ndim == 2 else out.view(*first.shape[:-1], n)


def _quicker_path(x: Sequence[Tensor], W: Tensor) -> Path:
    rows, (n, D) = x[0].numel() // x[0].shape[-1], W.shape
    # Tracers other than Dynamo represent a dynamic batch size by a symbol.
    if type(rows) is not int or is_dynamo_compiling():
        return "views"
    if W.is_cuda:
        launches = (len(x) - 1) * (LAUNCHES_WITH_GRADIENTS if recording((W, *x)) else 1)
        return "joined" if rows * D <= ELEMENTS_PER_LAUNCH * launches else "views"
    # View by view, the gradient of W (n, D) is put together from those of its columns: with at most n rows it is
    # quicker to copy the views; 0.8 of the time at (64; 4 x 1024; 1024), 0.7 to 0.85 for a masked W.
    return "joined" if rows * D <= CONCATENATE_ELEMENTS or (rows <= n and recording([W])) else "views"


def _join_narrow(x: Sequence[Tensor], limit: int) -> list[Tensor]:
    """Return the views as matrices (m, n_i), neighbours joined to at most ``limit`` columns."""
    groups: list[list[Tensor]] = []
    columns = limit
    for view in x:
        columns += view.shape[-1]
        if columns > limit:
            groups.append([])
            columns = view.shape[-1]
        groups[-1].append(view)
    return [joined_rows(group) for group in groups]


def joined_rows(views: Sequence[Tensor]) -> Tensor:
    """Return the concatenation of the views as a matrix; one view is not copied."""
    view = views[0] if len(views) == 1 else cat(tuple(views), -1)
    return view if view.ndim == 2 else view.reshape(-1, view.shape[-1])


def padded(x: Sequence[Tensor], width: int) -> Tensor:
    """Return the concatenation of the views, zeros on its right, as rows (m, width)."""
    missing = width - sum(view.shape[-1] for view in x)
    if missing:
        x = [*x, x[0].new_zeros(()).expand(*x[0].shape[:-1], missing)]
    return joined_rows(x)
