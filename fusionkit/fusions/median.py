"""Median of the views."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from fusionkit.fusion import ElementwiseFusion, Traits, present_count
from fusionkit.kernels.elementwise import BLOCK, blocks, select
from fusionkit.kernels.modes import supports_out_kernels

#: Above this number of views torch.median is used, because the length of a network grows as k log(k)^2.
NETWORK_VIEWS = 32


class Median(ElementwiseFusion):
    """``median(A_1, ..., A_k)``, entry by entry, of k views of equal width, (..., n) each -> (..., n); l = 0.

    The lower one of the two middle values for even k.  The gradient of an entry is shared evenly by the views that have
    its value.  NaN in any view gives NaN.  Computed by a selection network: Batcher's merge exchange (Knuth, The Art of
    Computer Programming, volume 3, algorithm 5.2.2M) without the comparators that cannot influence the median.
    """

    traits = Traits(
        permutation_invariant=True,
        batch_independent=True,
        idempotent=True,
        convex=True,
        monotone=True,
        order_in_k=2,
        missing="skip",
    )
    fill = math.inf

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return select(_middle, x)

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        # 0 in a row without any view.
        count = present_count(mask)
        return select(lambda views: lower_median(torch.stack(tuple(views), -1), count), x, mask)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Take the lower median of a stacked float64 copy."""
        return torch.stack([view.double() for view in x]).median(0).values


def lower_median(stack: Tensor, count: Tensor) -> Tensor:
    """Return the lower median of ``count`` (..., 1) values in the last dimension of a stack (..., n, k).

    All others should be infinite.  NaN among the values gives NaN.
    """
    index = ((count.long() - 1) // 2).unsqueeze(-1).expand(*stack.shape[:-1], 1)
    middle = stack.sort(-1).values.gather(-1, index).squeeze(-1)
    return torch.where(stack.isnan().any(-1), torch.nan, middle)


def _comparators(k: int) -> Iterator[tuple[int, int]]:
    """Yield the comparators (lower wire, upper wire) that sort k wires ascending."""
    p = 1
    while p < k:
        q = p
        while q:
            for start in range(q % p, k - q, 2 * q):
                for i in range(start, min(start + q, k - q)):
                    if i // (2 * p) == (i + q) // (2 * p):
                        yield i, i + q
            q //= 2
        p *= 2


def program(k: int) -> tuple[tuple[bool, int, int, tuple[int, ...]], ...]:
    """Return the network for the lower median of k values, k > 1, as steps (greater, first, second, dead).

    The views are the values 0 to k-1.  Step i computes the value k+i, the greater or the lesser of two values; no later
    step needs the values ``dead``.  The last step computes the median.
    """
    median = (k - 1) // 2
    needed, kept = {median}, []
    for lower, upper in reversed(list(_comparators(k))):
        if lower in needed or upper in needed:
            kept.append((lower, upper, lower in needed, upper in needed))
            needed |= {lower, upper}
    wires = list(range(k))
    steps: list[tuple[bool, int, int]] = []
    for lower, upper, low, high in reversed(kept):
        first, second = wires[lower], wires[upper]
        for wire, wanted, greater in ((lower, low, False), (upper, high, True)):
            if wanted:
                wires[wire] = k + len(steps)
                steps.append((greater, first, second))
    last = {value: i for i, (_, *pair) in enumerate(steps) for value in pair}
    return tuple(
        (greater, a, b, tuple(value for value in (a, b) if last[value] == i)) for i, (greater, a, b) in enumerate(steps)
    )


_kept_program = cache(program)


def _middle(x: Sequence[Tensor]) -> Tensor:
    k = len(x)
    if not supports_out_kernels(x):
        if k > NETWORK_VIEWS:
            return torch.stack(tuple(x), -1).median(-1).values
        values = list(x)
        # Compilers cannot trace through the cache.
        for greater, a, b, _ in (program if torch.compiler.is_compiling() else _kept_program)(k):
            values.append((torch.maximum if greater else torch.minimum)(values[a], values[b]))
        return values[-1]
    out = torch.empty_like(x[0])
    if k > NETWORK_VIEWS:
        for block, views in blocks(x, out, BLOCK // k):
            block.copy_(torch.stack(views, -1).median(-1).values)
        return out
    steps = _kept_program(k)
    spare: list[Tensor] = []
    for block, views in blocks(x, out):
        _run(steps, block, views, spare)
    return out


def _run(
    steps: Sequence[tuple[bool, int, int, tuple[int, ...]]], out: Tensor, views: Sequence[Tensor], spare: list[Tensor]
) -> None:
    """Fill ``out`` with the median of the views; ``spare`` keeps scratch tensors for the next block."""
    k = len(views)
    values: list[Tensor] = list(views)
    unused = list(spare)
    for i, (greater, a, b, dead) in enumerate(steps):
        if i < len(steps) - 1 and not unused:
            spare.append(torch.empty_like(out))
            unused.append(spare[-1])
        target = out if i == len(steps) - 1 else unused.pop()[: len(out)]
        values.append((torch.maximum if greater else torch.minimum)(values[a], values[b], out=target))
        unused.extend(values[value] for value in dead if value >= k)
