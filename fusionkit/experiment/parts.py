"""Rows that a network trains on, and the order in which it sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Batches(Protocol):
    """What a network trains on: a ``Part``, or one whose views stay in their files."""

    @property
    def mask(self) -> Any:
        """Which views are present; None if all of all rows are."""

    def __len__(self) -> int:
        """Return the number of rows m."""

    def to(self, device: torch.device) -> Batches:
        """Return the same rows; the batches are on ``device``."""

    def batches(self, sizes: Sequence[int], generator: torch.Generator, share: Share) -> Iterator[Batch]:
        """Yield the share of one process of all rows, in random order, as ``Part.batches`` does."""


@dataclass(frozen=True)
class Share:
    """Which rows of each batch one process computes.

    Attributes:
        rank: of the process.
        count: of processes.
        even: whether each must have as many rows as the others, up to one.  Otherwise, of views in files, a process has
            the rows of its own blocks, and reads no others.
    """

    rank: int = 0
    count: int = 1
    even: bool = True

    @property
    def rows(self) -> slice | None:
        """The rows of a batch in an even share; None: all of them."""
        return slice(self.rank, None, self.count) if self.count > 1 else None


#: That of the only process.
WHOLE = Share()


@dataclass
class Batch:
    """The share of one process of a batch.

    Attributes:
        part: its rows.
        size: the number of rows of the whole batch.
        rows: which of those it has: a slice, or their numbers; None: all.
        mask: of the whole batch, (size, k); None: all views are present.
    """

    part: Part
    size: int
    rows: slice | Tensor | None
    mask: Tensor | None

    @classmethod
    def of(cls, part: Part, share: Share) -> Batch:
        """Return an even share of a whole batch."""
        own = part if share.rows is None else part.sliced(share.rows)
        return cls(own, len(part), share.rows, part.mask)


@dataclass
class Part:
    """Some rows, in memory.

    Attributes:
        views: standardized, (m, n_i).
        target: as ``Task.tensor`` returns it.
        mask: which views are present, (m, k); None if all are.
        weight: of each row in the loss, (m,); None: 1.
    """

    views: list[Tensor]
    target: Tensor
    mask: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of rows m."""
        return len(self.target)

    def to(self, device: torch.device) -> Part:
        """Return the part on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def rows(self, index: Tensor) -> Part:
        """Return the rows at ``index`` (b,)."""
        return self._each(lambda tensor: tensor.index_select(0, index))

    def sliced(self, rows: slice) -> Part:
        """Return the rows of a slice."""
        return self._each(lambda tensor: tensor[rows])

    def joined(self, others: Sequence[Part]) -> Part:
        """Return the rows of the part and of others like it behind each other."""
        parts = [self, *others]
        mask, weight = (
            None if first is None else torch.cat([getattr(part, name) for part in parts])
            for name, first in (("mask", self.mask), ("weight", self.weight))
        )
        views = [torch.cat(views) for views in zip(*(part.views for part in parts), strict=True)]
        return Part(views, torch.cat([part.target for part in parts]), mask, weight)

    def batches(self, sizes: Sequence[int], generator: torch.Generator, share: Share = WHOLE) -> Iterator[Batch]:
        """Yield a share of all rows, each once, in random order.

        Args:
            sizes: of the whole batches; they add up to m.
            generator: of the order, on the CPU, so that the order is the same on every device and in every process.
            share: always taken evenly.
        """
        order = torch.randperm(len(self), generator=generator).to(self.target.device)
        for index in order.split([*sizes]):
            part = self.rows(index if share.rows is None else index[share.rows])
            mask = part.mask if share.rows is None or self.mask is None else self.mask[index]
            yield Batch(part, len(index), share.rows, mask)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Part:
        mask, weight = (None if one is None else change(one) for one in (self.mask, self.weight))
        return Part([change(view) for view in self.views], change(self.target), mask, weight)


def batch_sizes(rows: int, batch_size: int, processes: int = 1) -> list[int]:
    """Return the number of rows of each batch.

    A last one that leaves a process a single row, which a BatchNorm refuses, or none, joins the batch before.
    """
    whole, rest = divmod(rows, batch_size)
    sizes = [batch_size] * whole
    if whole and rest < 2 * processes:
        sizes[-1] += rest
    else:
        sizes.append(rest)
    return sizes
