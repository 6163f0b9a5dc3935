"""Views that stay in their files and are read by offset: pages of a mapped file would count as resident memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusionkit.errors import FusionError
from fusionkit.experiment.source import Array, Rows, native

#: Rows that are apart by fewer bytes are read together, because a seek costs more; but at most so many bytes at once.
_GAP, _READ = 2**16, 2**23


@dataclass(frozen=True)
class StoredArray:
    """An array (m, n) in C order in a ``.npy`` file.

    Attributes:
        path: the file.
        shape: (m, n).
        dtype: of numbers, in the byte order of the file.
        offset: of the first value.
        stamp: size and time of change of the file when it was opened.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    offset: int
    stamp: tuple[int, int]

    def read(self, start: int, stop: int) -> Array:
        """Return the rows from ``start`` to ``stop``, in native byte order.

        Raises:
            FusionError: the file was changed since it was opened, or cannot be read.
        """
        found = np.empty((max(0, stop - start), self.shape[1]), self.dtype)
        place, rest = (self.offset + start * self.dtype.itemsize * self.shape[1], found.reshape(-1).view(np.uint8).data)
        try:
            with self.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                while len(rest) and (count := os.preadv(file.fileno(), [rest], place)):
                    place, rest = place + count, rest[count:]
        except OSError as error:
            raise FusionError(f"{self.path} should stay readable; found {error.strerror}.") from error
        if len(rest) or (status.st_size, status.st_mtime_ns) != self.stamp:
            raise FusionError(f"{self.path} should not change while it is read; found another size or time of change.")
        return native(found)


@dataclass(frozen=True)
class StoredView:
    """A view (m, n) in one file, or in several whose rows follow each other.

    Attributes:
        files: of the same width.
    """

    files: tuple[StoredArray, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return sum(file.shape[0] for file in self.files), self.files[0].shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values that are read."""
        return np.result_type(*(file.dtype.newbyteorder("=") for file in self.files))

    @property
    def nbytes(self) -> int:
        """The size of all values, in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        """Return m."""
        return self.shape[0]

    def read(self, start: int, stop: int) -> Array:
        """Return the rows from ``start`` to ``stop``.

        Raises:
            FusionError: a file was changed since it was opened, or cannot be read.
        """
        parts, first = [], 0
        for file in self.files:
            low, high = max(start - first, 0), min(stop - first, file.shape[0])
            if low < high:
                parts.append(file.read(low, high))
            first += file.shape[0]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), self.dtype)

    def __getitem__(self, rows: Rows) -> Array:
        """Return rows by their numbers (b,), in this order; neighbours are read together.

        Raises:
            FusionError: as ``read``.
        """
        order = np.argsort(rows, kind="stable")
        ordered = np.asarray(rows)[order]
        found = np.empty((len(ordered), self.shape[1]), self.dtype)
        near, block = (max(1, size // (self.shape[1] * self.dtype.itemsize)) for size in (_GAP, _READ))
        breaks = np.flatnonzero((np.diff(ordered) > near) | (np.diff(ordered // block) > 0)) + 1
        for run, places in zip(np.split(ordered, breaks), np.split(order, breaks), strict=True):
            if len(run):
                found[places] = self.read(int(run[0]), int(run[-1]) + 1)[run - run[0]]
        return found


def joined(views: Sequence[StoredView]) -> StoredView:
    """Return the rows of several views behind each other."""
    return StoredView(tuple(file for view in views for file in view.files))
