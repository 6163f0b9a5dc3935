"""Estimates the cost of a product without W and with it, by multiply-adds and bytes; ``Fabrication`` chooses by them.

In units of a multiply-add of a dense product, m rows cost

    without W       m * (THIN * macs + COPY * copies) + COPY * setup
    with W built    m * n * D + COPY * BUILD * n * D

where ``macs``, ``copies`` and ``setup`` are what the fabrication states (``Effort``), and the constants are of the
order of what was measured for the core's fabrications on two cores with AVX-512, forward (docs/bench.md).  The forward
product decides, because even with gradients enabled the caller may never call backward.

A GPU mostly waits for launches: there each way takes the time in which its operations are launched, or that of its
multiply-adds and bytes if it is longer, both counted on the meta device (``Launched``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fusionkit.kernels.modes import in_transform

#: A multiply-add of a structured product, whose factors are small, in multiply-adds of a dense one.
THIN = 1.5
#: Copying a number, eight bytes read and written, in multiply-adds of a dense product.
COPY = 50.0
#: How often every entry of W is copied until W is built.
BUILD = 2.0
#: Never build W with >= LARGE_W entries for >= MANY_ROWS rows: it costs memory, and at these sizes a structured product
#: is at worst slightly slower.  Where the number of rows is unknown (compiling, vmap), decide as for MANY_ROWS.
LARGE_W, MANY_ROWS = 10**6, 2000
#: On the CPU a product without W takes the rows in blocks that copy about CACHED numbers, to stay in the cache, but of
#: at least LEAST_BLOCK rows.  At (4096; 4 x 512; 512), of all rows at once: toeplitz 0.42, tensor_train 0.57, kronecker
#: 0.64, monarch 0.80, block_circulant 0.93 (AVX2); block_circulant 0.72 (AVX-512).
CACHED, LEAST_BLOCK = 2**20, 512
#: On a GPU a W of at least this many entries is never built.
HUGE_W = 2**26
#: Of a GPU (H100): seconds to launch an operation; multiply-adds per second, by the bytes of a number; and bytes per
#: second.
LAUNCH, MACS, BYTES = 1.8e-5, {2: 4e14, 4: 2.5e13, 8: 2.5e13}, 2e12


class Effort(NamedTuple):
    """What a fabrication's product without W costs.

    Attributes:
        macs: multiply-adds per row.
        copies: numbers copied per row, outside of products: to pad, join or permute; an FFT of length N counts about
            log2(N) / 2 per number.
        setup: numbers made per call, independent of the rows.
        slabs: whether ``multiply_built`` makes a large W in slabs of rows, so that it is never there as a whole.
    """

    macs: float
    copies: float = 0.0
    setup: float = 0.0
    slabs: bool = False


class BreakEven(NamedTuple):
    """Up to how many rows the product without W is the cheaper way, for one fabrication and size.

    Attributes:
        per_row: what a row costs more without W than with it.
        once: what building W costs more than the setup of the product without it.
        block: about how many rows the product without W takes at a time.
        large: whether W is large, and would be there as a whole.
        huge: whether W has at least ``HUGE_W`` entries, and would be there as a whole.
    """

    per_row: float
    once: float
    block: int = LEAST_BLOCK
    large: bool = False
    huge: bool = False

    @classmethod
    def of(cls, effort: Effort, n: int, D: int) -> BreakEven:
        """Return the break-even of a fabrication with this effort for W (n, D)."""
        entries = n * D
        whole = 0 if effort.slabs else entries
        return cls(
            per_row=THIN * effort.macs + COPY * effort.copies - entries,
            once=COPY * (BUILD * entries - effort.setup),
            block=max(LEAST_BLOCK, CACHED // max(1, round(effort.copies))),
            large=whole >= LARGE_W,
            huge=whole >= HUGE_W,
        )

    def skips_materialization(self, view: Tensor) -> bool:
        """Whether the product without W should be used for views like this one (..., n_i)."""
        rows = view.numel() // view.shape[-1]
        fixed = type(rows) is int and not torch.compiler.is_compiling() and not in_transform()
        return self.holds_for(rows if fixed else MANY_ROWS)

    def holds_for(self, rows: int) -> bool:
        """Whether the product without W should be used for this many rows."""
        return (self.large and rows >= MANY_ROWS) or rows * self.per_row <= self.once


class Launched(NamedTuple):
    """The work of one way to compute a product on a GPU.

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

    def seconds(self, size: int) -> float:
        """Return about how long it takes with numbers of ``size`` bytes."""
        return max(self.launches * LAUNCH, self.macs / MACS.get(size, MACS[4]) + self.bytes / BYTES)
