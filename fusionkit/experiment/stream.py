"""Views that stay in their files: what is known of them from one pass, and batches of their rows in random order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from fusionkit._util.progress import ProgressBar
from fusionkit.experiment.missing import present_rows
from fusionkit.experiment.model import Scaler
from fusionkit.experiment.moments import Moments
from fusionkit.experiment.parts import Part
from fusionkit.experiment.source import Array, Rows
from fusionkit.experiment.stored import StoredView

#: Bytes of a block, and of the buffer in which the rows of many blocks are mixed, as float32.  From a cold disk, blocks
#: of 64 KiB and 256 KiB in random order came at 0.38 GB/s, those of 1 MiB at 0.97 and of 4 MiB at 0.78; 64 small blocks
#: mix better than 16 large ones, and three buffers (read, waiting, trained on) take 0.2 GB.
BLOCK, BUFFER = 2**20, 2**26

T = TypeVar("T")


def block_rows(views: Sequence[StoredView]) -> int:
    """Return the number of rows in a block."""
    return max(1, BLOCK // (4 * sum(view.shape[1] for view in views)))


def buffer_blocks(views: Sequence[StoredView]) -> int:
    """Return the number of blocks in a buffer."""
    return max(1, BUFFER // (4 * block_rows(views) * sum(view.shape[1] for view in views)))


def read_blocks(
    views: Sequence[StoredView], rows: int, among: npt.NDArray[np.bool_] | None = None
) -> Generator[tuple[int, list[Array]]]:
    """Yield blocks of ``rows`` neighbouring rows, in the order of the file; the next one is read meanwhile.

    Args:
        views: (m, n_i).
        rows: of a block.
        among: (m,): blocks without one of these rows are left out; None: none is.

    Yields:
        The number of the first row, and k arrays (b, n_i).
    """
    total = len(views[0])
    starts = (start for start in range(0, total, rows) if among is None or among[start : start + rows].any())
    yield from ahead((start, [view.read(start, min(start + rows, total)) for view in views]) for start in starts)


def ahead(items: Iterator[T]) -> Generator[T]:
    """Yield the items; a thread makes the next one meanwhile.  Its errors are raised here, and it ends with this."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="fusionkit-reads") as thread:
        upcoming = thread.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(next, items, end)
            yield item
            del item


def survey(
    names: Sequence[str],
    views: Sequence[StoredView],
    mask: npt.NDArray[np.bool_] | None,
    impute: str | None,
    training_rows: Rows,
    *,
    shown: bool = False,
) -> tuple[npt.NDArray[np.bool_] | None, list[Moments]]:
    """Read all views once; return which are present, (m, k), None if all are, and the moments of the training rows.

    Args:
        names: of the views, for messages.
        views: (m, n_i).
        mask: (m, k), True where a view of a row is present; None: where it is not all NaN.
        impute: as for ``present_rows``.
        training_rows: their present values have the moments.
        shown: whether to show the progress.

    Raises:
        FusionError: as ``present_rows`` and ``StoredView.read``.
    """
    total = len(views[0])
    member = members(total, training_rows)
    present = np.empty((total, len(views)), dtype=bool)
    found = [Moments(view.shape[1]) for view in views]
    with ProgressBar(total, shown=shown) as bar, closing(read_blocks(views, block_rows(views))) as blocks:
        for start, block in blocks:
            rows = slice(start, start + len(block[0]))
            for i, (name, view) in enumerate(zip(names, block, strict=True)):
                given = None if mask is None else mask[rows, i]
                present[rows, i] = present_rows(name, view, given, impute=impute, first=start)
                found[i].add(_chosen(view, member[rows] & present[rows, i]))
            bar.update(rows.stop, f"reading: {rows.stop} of {total} rows")
    return None if present.all() else present, found


def members(total: int, rows: Rows) -> npt.NDArray[np.bool_]:
    """Return which of all rows are among these, (total,)."""
    member = np.zeros(total, dtype=bool)
    member[rows] = True
    return member


def _chosen(view: Array, rows: npt.NDArray[np.bool_]) -> Array:
    return view if rows.all() else view[rows]


@dataclass
class StreamedPart:
    """Some rows of views that stay in their files.

    An epoch reads blocks of neighbouring rows in random order, and mixes the rows of several blocks in a buffer.  Rows
    of other parts in a block are read and dropped.

    Attributes:
        views: (m, n_i).
        scaler: standardizes them.
        rest: target, mask and weight of all m rows, without views.
        member: which rows are in the part, (m,).
        block_rows: the number of rows in a block.
        buffer_blocks: the number of blocks in a buffer.
        device: of the batches; None: the CPU.
    """

    views: Sequence[StoredView]
    scaler: Scaler
    rest: Part
    member: npt.NDArray[np.bool_]
    block_rows: int
    buffer_blocks: int
    device: torch.device | None = None

    @property
    def mask(self) -> Any:
        """Which views of all m rows are present; None if all are."""
        return self.rest.mask

    def __len__(self) -> int:
        """Return the number of rows in the part."""
        return int(np.count_nonzero(self.member))

    def to(self, device: torch.device) -> StreamedPart:
        """Return the part with its batches on ``device``."""
        return replace(self, device=device)

    def batches(self, sizes: Sequence[int], generator: torch.Generator) -> Iterator[Part]:
        """Yield all rows of the part once, in random order; the next buffer is read and standardized meanwhile.

        Args:
            sizes: of the batches; they add up to the number of rows.
            generator: on the CPU; one number is drawn from it at the first batch, and gives the order of the epoch.

        Raises:
            FusionError: as ``StoredView.read``.
        """
        order = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        with closing(ahead(self._buffers(order))) as buffers:
            yield from _cut(buffers, sizes)

    def _buffers(self, order: torch.Generator) -> Iterator[Part]:
        """Yield buffers of about equally many blocks."""
        starts = np.arange(0, len(self.member), self.block_rows)
        starts = starts[np.logical_or.reduceat(self.member, starts)]
        starts = starts[torch.randperm(len(starts), generator=order).numpy()]
        for some in np.array_split(starts, -(-len(starts) // self.buffer_blocks)):
            buffer = self._buffer(np.sort(some).tolist(), order)
            yield buffer if self.device is None else buffer.to(self.device)

    def _buffer(self, starts: Sequence[int], order: torch.Generator) -> Part:
        """Return the rows of the part in some blocks, in random order."""
        members = [self.member[start : start + self.block_rows] for start in starts]
        rows = torch.from_numpy(
            np.concatenate([start + np.flatnonzero(own) for start, own in zip(starts, members, strict=True)])
        )
        # Each row is written where it will be read, so that batches are slices.
        places = torch.randperm(len(rows), generator=order)
        views = [torch.empty((len(rows), view.shape[1]), dtype=torch.float32, device="cpu") for view in self.views]
        index, first = torch.empty_like(rows), 0
        index[places] = rows
        for start, own in zip(starts, members, strict=True):
            block = [_chosen(view.read(start, start + len(own)), own) for view in self.views]
            at = places[first : first + len(block[0])]
            first += len(at)
            for buffer, view in zip(views, self.scaler(block), strict=True):
                buffer.index_copy_(0, at, view)
        return replace(self.rest.rows(index), views=views)


def _cut(buffers: Iterator[Part], sizes: Iterable[int]) -> Iterator[Part]:
    """Yield the rows of several parts in batches of these sizes."""
    buffer, start = next(buffers), 0
    for size in sizes:
        batch = buffer.sliced(slice(start, start + size))
        start += size
        while (lacks := size - len(batch)) > 0:
            buffer, start = next(buffers), lacks
            batch = batch.joined([buffer.sliced(slice(lacks))])
        yield batch
