"""The one place where a fabrication's own product is weighed against building W, by multiply-adds and bytes.

In units of a multiply-add of a dense product, m rows cost

    with the own product    m * (THIN * macs + COPY * copies) + COPY * setup
    with W built            m * n * D + COPY * BUILD * n * D

where ``macs``, ``copies`` and ``setup`` are what the fabrication states (``Effort``; many rows of some are multiplied
without joining the views, which saves these copies), and the constants are of the
order of what was measured for the core's fabrications on two cores, forward (docs/bench.md).  With a thin W the
gradient of the dense product is dear, and the own product could win earlier; the forward product decides, since with
gradients on it may be all that is wanted.  A GPU is rather kept waiting: there each way takes the time in which its
operations are launched, or that of its multiply-adds and bytes if it is longer, both counted on the meta device
(``Launched``; the constants are of the order of an H100's).  While compiling or exporting, and under functorch
transforms, the choice must not depend on the batch: it is that for ``NOMINAL_ROWS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from fusionkit.kernels.matmul import PIECE_ELEMENTS
from fusionkit.kernels.modes import in_transform

__all__ = ["COPY", "LARGE_W", "LEAST_BLOCK", "Effort", "Launched", "Plan"]

#: A multiply-add of a structured product, whose factors are small, in multiply-adds of a dense one.
THIN = 1.5
#: Copying a number, eight bytes read and written, in multiply-adds of a dense product.
COPY = 50.0
#: How often every entry of W is copied until W is built.
BUILD = 2.0
#: While compiling or exporting the batch counts as having this many rows.
NOMINAL_ROWS = 1024
#: A W of at least so many entries is never built for at least so many rows: its memory would show, its speed not.
LARGE_W, MANY_ROWS = 10**6, 2000
#: On the CPU in eager mode an own product takes as many rows at a time as copy so many numbers, which stay in the
#: cache; but not fewer rows than that: what it does once per call, and products of few rows, would show.
CACHED, LEAST_BLOCK = 2**20, 512
#: On a GPU: a W of so many entries is never built; seconds to launch an operation; multiply-adds, by the bytes of a
#: number, and bytes in a second.
HUGE_W = 2**26
LAUNCH, MACS, BYTES = 1.8e-5, {2: 4e14, 4: 2.5e13, 8: 2.5e13}, 2e12


class Effort(NamedTuple):
    """What a fabrication's own product costs.

    Attributes:
        macs: multiply-adds per row.
        copies: numbers copied per row, outside of products: to pad, join or permute; a number that an FFT passes counts
            half its binary logarithm.
        setup: numbers made per call, whatever the rows.
        slabs: whether a large W is made, and multiplied by, in slabs of rows (``Fabrication._slabs``).
        joined: how many of the copies only join the views for ``column_blocks`` products with column blocks; many rows
            are multiplied without (``fusionkit.kernels.matmul.block_products``).
        column_blocks: the number of these blocks.
    """

    macs: float
    copies: float = 0.0
    setup: float = 0.0
    slabs: bool = False
    joined: float = 0.0
    column_blocks: int = 0


class Launched(NamedTuple):
    """What a way does on a GPU.

    Attributes:
        launches: of operations.
        macs: multiply-adds.
        bytes: read and written by all operations.
    """

    launches: int
    macs: int
    bytes: int

    @classmethod
    def by(cls, function: Callable[[], object]) -> Launched:
        """Count what ``function`` does with meta tensors."""
        from fusionkit.kernels.tracing import Recorder, apart  # Imports what only this needs.

        recorder = Recorder()

        def run() -> None:
            with recorder:
                function()

        apart(run)
        done = [operation for operation in recorder.operations if operation.bytes]
        return cls(len(done), sum(o.macs for o in done), sum(o.bytes for o in done))

    @classmethod
    def product(cls, rows: int, n: int, D: int, size: int) -> Launched:
        """Return what joining the views, numbers of ``size`` bytes, and multiplying by W does."""
        return cls(2, rows * n * D, size * (3 * rows * D + n * D + rows * n))

    def then(self, other: Launched) -> Launched:
        """Return both, one after the other."""
        return Launched(self.launches + other.launches, self.macs + other.macs, self.bytes + other.bytes)

    def seconds(self, size: int) -> float:
        """Return about how long it takes with numbers of ``size`` bytes."""
        return max(self.launches * LAUNCH, self.macs / MACS.get(size, MACS[4]) + self.bytes / BYTES)


@dataclass(frozen=True)
class Plan:
    """The choice for one fabrication and size; affine in the rows.

    Attributes:
        per_row: what a row costs more with the own product than with W.
        once: what building W costs more than the setup of the own product.
        large: whether W is large, and would be there as a whole.
        huge: whether that is so even for a GPU.
        block: about how many rows the own product takes at a time, three to six quarters of that.
        cut_rows: from how many rows on the views are not joined.
        cut_per_row: what a row costs more with the own product then.
    """

    per_row: float
    once: float
    large: bool
    block: int = LEAST_BLOCK
    cut_rows: float = float("inf")
    cut_per_row: float = 0.0
    huge: bool = False

    @classmethod
    def of(cls, effort: Effort, n: int, D: int, views: int = 1) -> Plan:
        """Return the plan for W of shape (n, D) and so many views."""
        per_row = THIN * effort.macs + COPY * effort.copies - n * D
        once = COPY * (BUILD * n * D - effort.setup)
        large, huge = n * D >= LARGE_W and not effort.slabs, n * D >= HUGE_W and not effort.slabs
        block = max(LEAST_BLOCK, CACHED // max(1, round(effort.copies)))
        if not effort.joined:
            return cls(per_row, once, large, block, huge=huge)
        cut_rows = PIECE_ELEMENTS * (views + effort.column_blocks - 1) / D
        block = max(block, ceil(4 / 3 * cut_rows))
        return cls(per_row, once, large, block, cut_rows, per_row - COPY * effort.joined, huge)

    def own_product(self, first: Tensor) -> bool:
        """Tell whether the own product is the way for views like ``first`` (..., n_1)."""
        if torch.compiler.is_compiling() or in_transform():
            return self._pays(MANY_ROWS if self.large else NOMINAL_ROWS, self.per_row)
        rows = first.numel() // first.shape[-1]
        if type(rows) is not int:
            rows = NOMINAL_ROWS
        # Only on the CPU are views left unjoined.
        return self.decide(rows) if first.is_cpu else self._pays(rows, self.per_row)

    def decide(self, rows: int) -> bool:
        """Tell whether the own product is the way for this many rows."""
        return self._pays(rows, self.cut_per_row if rows >= self.cut_rows else self.per_row)

    def _pays(self, rows: int, per_row: float) -> bool:
        return (self.large and rows >= MANY_ROWS) or rows * per_row <= self.once
