"""Arrays that stay in their files and are read by offset: pages of a mapped file would count as resident memory."""

from __future__ import annotations

import math
import os
import stat
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from fusionkit.errors import FusionError
from fusionkit.experiment.source import Array, Rows, native, objects_refused

#: Rows that are apart by fewer bytes are read together, because a seek costs more; at once at most the second number.
_GAP, _READ = 2**16, 2**23
#: The readers of the headers of arrays of numbers, by magic string.  Version 3.0 differs from 2.0 in the encoding of
#: the names of fields, which such arrays do not have.
_HEADERS = {
    np.lib.format.magic(1, 0): np.lib.format.read_array_header_1_0,
    np.lib.format.magic(2, 0): np.lib.format.read_array_header_2_0,
    np.lib.format.magic(3, 0): np.lib.format.read_array_header_2_0,
}
#: What reading a damaged header raises.
_DAMAGES = (ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """Return the shape of the array at the start of a file, whether it is in Fortran order, and its dtype.

    None: the file is of another format.

    Raises:
        ValueError and others: a damaged header.
    """
    read = _HEADERS.get(file.read(8))
    return None if read is None else read(file)


@dataclass(frozen=True)
class StoredArray:
    """An array (m, ...) in C order in a ``.npy`` file.

    Attributes:
        path: the file.
        shape: (m, ...).
        dtype: in the byte order of the file; never of Python objects.
        offset: of the first value.
        stamp: size and time of change of the file when it was opened.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    stamp: tuple[int, int]

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of all values in the file, in bytes."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Return m."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        """Return neighbouring rows, as ``read`` does."""
        start, stop, _ = rows.indices(len(self))
        return self.read(start, stop)

    def whole(self) -> Array:
        """Return all values; as ``read`` in everything else."""
        return self._read(0, self.shape)

    def read(self, start: int, stop: int) -> Array:
        """Return the rows from ``start`` to ``stop``, in the byte order of the file.

        Raises:
            FusionError: the file was changed since it was opened, or cannot be read.
        """
        return self._read(start * math.prod(self.shape[1:]), (max(0, stop - start), *self.shape[1:]))

    def _read(self, first: int, shape: tuple[int, ...]) -> Array:
        """Return an array of this shape, whose values start with number ``first`` of the file."""
        content = np.empty(max(1, math.prod(shape) * self.dtype.itemsize), np.uint8)
        rest = content.data[: math.prod(shape) * self.dtype.itemsize]
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset + first * self.dtype.itemsize)
                while len(rest) and (count := file.readinto(rest)):
                    rest = rest[count:]
                status = os.fstat(file.fileno())
        except OSError as error:
            raise FusionError(f"{self.path} should stay readable; found {error.strerror}.") from error
        if len(rest) or stamp(status) != self.stamp:
            raise FusionError(f"{self.path} should not change while it is read; found another size or time of change.")
        return np.ndarray(shape, self.dtype, content)


def stamp(status: os.stat_result) -> tuple[int, int]:
    """Return size and time of change of a file."""
    return status.st_size, status.st_mtime_ns


def stored_array(path: Path) -> StoredArray:
    """Return the array in a ``.npy`` file of a folder, of which only the header is read.

    Raises:
        FusionError: no regular file, another format, a damaged or truncated one, Python objects, or Fortran order.
    """
    header = None
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        if regular:  # Opening a pipe would wait for a writer.
            with path.open("rb") as file:
                status, header, offset = os.fstat(file.fileno()), read_header(file), file.tell()
    except OSError as error:
        raise FusionError(f"{path} should be a .npy file; found {error.strerror}.") from error
    except _DAMAGES as error:
        raise FusionError(f"{path} should be a complete .npy file; found a damaged header.") from error
    if header is None:
        found = "another format" if regular else "a folder, a pipe or a device"
        raise FusionError(f"{path} should be a .npy file, as numpy.save writes it; found {found}.")
    shape, fortran, dtype = header
    if dtype.hasobject:
        raise objects_refused(path.parent, path.stem)
    claimed, there = math.prod(shape) * dtype.itemsize, status.st_size - offset
    if min(shape, default=0) < 0 or there < claimed:
        raise FusionError(f"{path} should have {claimed} bytes of values, for its shape {shape}; found {there}.")
    if fortran and len(shape) > 1:
        advice = "numpy.save(path, numpy.ascontiguousarray(array)) rewrites it."
        raise FusionError(f"{path} should be in C order, row behind row; found Fortran order.  {advice}")
    return StoredArray(path, shape, dtype, offset, stamp(status))


@dataclass(frozen=True)
class StoredView:
    """A view (m, n) in one file, or in several whose rows follow each other.

    Attributes:
        files: of the same width, of real numbers.
    """

    files: tuple[StoredArray, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return sum(len(file) for file in self.files), self.files[0].shape[1]

    @property
    def ndim(self) -> int:
        """The number of dimensions, 2."""
        return 2

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values that are read."""
        return np.result_type(*(native(np.empty(0, file.dtype)).dtype for file in self.files))

    @property
    def nbytes(self) -> int:
        """The size of all values once they are read, in bytes."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Return m."""
        return self.shape[0]

    def read(self, start: int, stop: int) -> Array:
        """Return the rows from ``start`` to ``stop``, as PyTorch takes them.

        Raises:
            FusionError: a file was changed since it was opened, or cannot be read.
        """
        parts, first = [], 0
        for file in self.files:
            low, high = max(start - first, 0), min(stop - first, len(file))
            if low < high:
                with np.errstate(over="ignore"):  # A long double may become infinite, which is refused later.
                    parts.append(native(file.read(low, high)))
            first += len(file)
        if len(parts) == 1:
            return parts[0].astype(self.dtype, copy=False)
        return np.concatenate(parts, dtype=self.dtype) if parts else np.empty((0, self.shape[1]), self.dtype)

    def __getitem__(self, rows: Rows | slice) -> Array:
        """Return rows by their numbers (b,), in this order, or a slice of them; neighbours are read together.

        Raises:
            FusionError: as ``read``.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return self.read(start, stop)
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
