"""Views that stay in their files: what is known of them from one pass, and batches of their rows in random order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from fusionkit._util.progress import ProgressBar
from fusionkit.experiment import ranks
from fusionkit.experiment.missing import present_rows
from fusionkit.experiment.model import Scaler
from fusionkit.experiment.moments import Moments
from fusionkit.experiment.parts import WHOLE, Batch, Part, Share
from fusionkit.experiment.source import Array, Rows
from fusionkit.experiment.stored import StoredView

#: Bytes of a block, and of the buffer in which the rows of many blocks are mixed, as float32.  From a cold disk, blocks
#: of 64 KiB and 256 KiB in random order came at 0.38 GB/s, those of 1 MiB at 0.97 and of 4 MiB at 0.78; 64 small blocks
#: mix better than 16 large ones, and three buffers (read, waiting, trained on) take 0.2 GB.
BLOCK, BUFFER = 2**20, 2**26

T = TypeVar("T")

#: The start of a block, which of its rows are in the part, and the places of those in the buffer.
_Block = tuple[int, npt.NDArray[np.bool_], torch.Tensor]


def block_rows(views: Sequence[StoredView]) -> int:
    """Return the number of rows in a block."""
    return max(1, BLOCK // (4 * sum(view.shape[1] for view in views)))


def buffer_blocks(views: Sequence[StoredView]) -> int:
    """Return the number of blocks in a buffer."""
    return max(1, BUFFER // (4 * block_rows(views) * sum(view.shape[1] for view in views)))


def read_blocks(
    views: Sequence[StoredView], rows: int, among: npt.NDArray[np.bool_] | None = None, share: Share = WHOLE
) -> Generator[tuple[int, list[Array]]]:
    """Yield blocks of ``rows`` neighbouring rows, in the order of the file; the next one is read meanwhile.

    Args:
        views: (m, n_i).
        rows: of a block.
        among: (m,): blocks without one of these rows are left out; None: none is.
        share: which of all blocks: every ``share.count``-th.

    Yields:
        The number of the first row, and k arrays (b, n_i).
    """
    total = len(views[0])
    own = range(share.rank * rows, total, share.count * rows)
    starts = (start for start in own if among is None or among[start : start + rows].any())
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

    Processes that were started for this run read a share of the blocks each.

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
    total, rows = len(views[0]), block_rows(views)
    parts = ranks.gathered(partial(_surveyed, names, views, mask, impute, training_rows, shown))
    (_, moments), *others = parts
    for _, found in others:
        for one, other in zip(moments, found, strict=True):
            one.merge(other)
    if all(present is None for present, _ in parts):
        return None, moments
    whole = np.ones((total, len(views)), dtype=bool)
    for rank, (present, _) in enumerate(parts):
        blocks = iter([] if present is None else present)
        for start, block in zip(range(rank * rows, total, len(parts) * rows), blocks, strict=False):
            whole[start : start + rows] = block
    return whole, moments


def _surveyed(
    names: Sequence[str],
    views: Sequence[StoredView],
    mask: npt.NDArray[np.bool_] | None,
    impute: str | None,
    training_rows: Rows,
    shown: bool,
    rank: int,
    count: int,
) -> tuple[list[npt.NDArray[np.bool_]] | None, list[Moments]]:
    """Return what ``survey`` does of every ``count``-th block; which are present, by block."""
    total = len(views[0])
    member = members(total, training_rows)
    present: list[npt.NDArray[np.bool_]] = []
    found = [Moments(view.shape[1]) for view in views]
    blocks = read_blocks(views, block_rows(views), share=Share(rank, count))
    with ProgressBar(total, shown=shown and rank == 0) as bar, closing(blocks):
        for start, block in blocks:
            rows = slice(start, start + len(block[0]))
            present.append(np.empty((len(block[0]), len(views)), dtype=bool))
            for i, (name, view) in enumerate(zip(names, block, strict=True)):
                given = None if mask is None else mask[rows, i]
                present[-1][:, i] = present_rows(name, view, given, impute=impute, first=start)
                found[i].add(_chosen(view, member[rows] & present[-1][:, i]))
            bar.update(rows.stop, f"reading: {rows.stop} of {total} rows")
    return None if all(one.all() for one in present) else present, found


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

    def batches(self, sizes: Sequence[int], generator: torch.Generator, share: Share = WHOLE) -> Iterator[Batch]:
        """Yield a share of all rows, each once, in random order; the next buffer is read and standardized meanwhile.

        Args:
            sizes: of the whole batches; they add up to the number of rows.
            generator: on the CPU; one number is drawn from it at the first batch, and gives the order of the epoch.
            share: unless it is even, each process reads every ``share.count``-th block.

        Raises:
            FusionError: as ``StoredView.read``.
        """
        order = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        blocks = WHOLE if share.even else share
        with closing(ahead(self._buffers(order, blocks))) as buffers:
            for batch in _cut(buffers, sizes):
                yield Batch.of(batch, share) if isinstance(batch, Part) else batch.share()

    def _buffers(self, order: torch.Generator, share: Share) -> Iterator[Part | Mixed]:
        """Yield buffers of about equally many blocks, with the views of the blocks of a share."""
        starts = np.arange(0, len(self.member), self.block_rows)
        starts = starts[np.logical_or.reduceat(self.member, starts)]
        starts = starts[torch.randperm(len(starts), generator=order).numpy()]
        own = np.arange(len(starts)) % share.count == share.rank
        for some in np.array_split(np.arange(len(starts)), -(-len(starts) // self.buffer_blocks)):
            some = some[np.argsort(starts[some])]
            rest, blocks = self._mixed(starts[some].tolist(), order)
            if share.count == 1:
                buffer: Part | Mixed = replace(rest, views=self._views(blocks, len(rest)))
            else:
                buffer = self._partial(rest, [block for block, mine in zip(blocks, own[some], strict=True) if mine])
            yield buffer if self.device is None else buffer.to(self.device)

    def _mixed(self, starts: Sequence[int], order: torch.Generator) -> tuple[Part, list[_Block]]:
        """Return the rows of some blocks in random order, without views, and the blocks with the places of their rows.

        Each row is written where it will be read, so that batches are slices.
        """
        members = [self.member[start : start + self.block_rows] for start in starts]
        rows = torch.from_numpy(
            np.concatenate([start + np.flatnonzero(own) for start, own in zip(starts, members, strict=True)])
        )
        places = torch.randperm(len(rows), generator=order)
        index = torch.empty_like(rows)
        index[places] = rows
        split = places.split([int(np.count_nonzero(own)) for own in members])
        return self.rest.rows(index), list(zip(starts, members, split, strict=True))

    def _partial(self, rest: Part, blocks: Sequence[_Block]) -> Mixed:
        """Return the rows of a buffer with the views of some of its blocks alone."""
        positions, back = torch.cat([torch.empty(0, dtype=torch.int64), *(at for _, _, at in blocks)]).sort()
        places = torch.empty_like(back)
        places[back] = torch.arange(len(back))
        split = places.split([len(at) for _, _, at in blocks])
        moved = [(start, own, at) for (start, own, _), at in zip(blocks, split, strict=True)]
        return Mixed(rest, self._views(moved, len(positions)), positions)

    def _views(self, blocks: Iterable[_Block], rows: int) -> list[torch.Tensor]:
        """Return standardized views (rows, n_i): of each block, given by its start, these members at these places."""
        views = [torch.empty((rows, view.shape[1]), dtype=torch.float32, device="cpu") for view in self.views]
        for start, own, at in blocks:
            block = [_chosen(view.read(start, start + len(own)), own) for view in self.views]
            for buffer, view in zip(views, self.scaler(block), strict=True):
                buffer.index_copy_(0, at, view)
        return views


@dataclass
class Mixed:
    """Rows of which one process has only some.

    Attributes:
        rest: target, mask and weight of all m rows, without views.
        views: of the rows of the process, (r, n_i).
        positions: of these among all rows, ascending, (r,).
    """

    rest: Part
    views: list[torch.Tensor]
    positions: torch.Tensor

    def __len__(self) -> int:
        """Return m."""
        return len(self.rest)

    def to(self, device: torch.device) -> Mixed:
        """Return the same on ``device``."""
        return Mixed(self.rest.to(device), [view.to(device) for view in self.views], self.positions.to(device))

    def sliced(self, rows: slice) -> Mixed:
        """Return some of all rows; the slice has no step."""
        start, stop, _ = rows.indices(len(self))
        first, last = torch.searchsorted(self.positions, torch.tensor([start, stop], device=self.positions.device))
        own = slice(int(first), int(last))
        return Mixed(self.rest.sliced(rows), [view[own] for view in self.views], self.positions[own] - start)

    def joined(self, others: Sequence[Mixed]) -> Mixed:
        """Return the rows, and those of others behind them."""
        parts = [self, *others]
        before = np.cumsum([0, *map(len, parts)]).tolist()
        positions = torch.cat([part.positions + start for part, start in zip(parts, before[:-1], strict=True)])
        views = [torch.cat(views) for views in zip(*(part.views for part in parts), strict=True)]
        return Mixed(self.rest.joined([part.rest for part in others]), views, positions)

    def share(self) -> Batch:
        """Return them as the share of a batch."""
        own = replace(self.rest.rows(self.positions), views=self.views)
        return Batch(own, len(self), self.positions, self.rest.mask)


def _cut(buffers: Iterator[Part | Mixed], sizes: Iterable[int]) -> Iterator[Part | Mixed]:
    """Yield the rows of several buffers, all of one kind, in batches of these sizes."""
    buffer: Any = next(buffers)
    start = 0
    for size in sizes:
        batch = buffer.sliced(slice(start, start + size))
        start += size
        while (lacks := size - len(batch)) > 0:
            buffer, start = next(buffers), lacks
            batch = batch.joined([buffer.sliced(slice(lacks))])
        yield batch
