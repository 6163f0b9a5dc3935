"""Files of predictions: written batch by batch, so that memory does not grow with the rows."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import numpy as np

#: The columns of some rows: name -> m values.
Columns = dict[str, Any]


def write_csv(batches: Iterator[Columns], path: Path) -> None:
    """Write a line per row, below a header."""
    pandas = import_module("pandas")  # It takes as long as torch, and .npz does not need it.
    with path.open("w", encoding="utf-8", newline="") as file:
        for i, batch in enumerate(batches):
            pandas.DataFrame(batch).to_csv(file, header=i == 0, index=False)


def write_npz(batches: Iterator[Columns], path: Path) -> None:
    """Write an array per column: the values of all batches go to a temporary file beside ``path`` first."""
    pieces: dict[str, list[_Piece]] = {}
    with TemporaryFile(dir=path.parent) as values:
        for batch in batches:
            for name, column in batch.items():
                array = np.ascontiguousarray(column)
                pieces.setdefault(name, []).append(_Piece(values.tell(), len(array), array.dtype))
                values.write(array.view(np.uint8).data)
        with zipfile.ZipFile(path, "w") as archive:  # For numpy.savez no array can be called file.
            for name, column_pieces in pieces.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_column(values, column_pieces, member)


class _Piece(NamedTuple):
    """Values of a column in a file: where they start, and how many there are."""

    start: int
    rows: int
    dtype: np.dtype[Any]


def _write_column(values: IO[bytes], pieces: list[_Piece], member: IO[bytes]) -> None:
    """Write the array of a column, in the type that holds all of its pieces, such as the widest text."""
    dtype, rows = np.result_type(*(piece.dtype for piece in pieces)), sum(piece.rows for piece in pieces)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
    np.lib.format.write_array_header_1_0(member, header)
    for piece in pieces:
        values.seek(piece.start)
        found = np.frombuffer(values.read(piece.rows * piece.dtype.itemsize), piece.dtype)
        member.write(found.astype(dtype, copy=False).view(np.uint8).data)


def write_parquet(batches: Iterator[Columns], path: Path) -> None:
    """Write a row group per batch.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    first = pyarrow.table(next(batches))
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for batch in batches:
            writer.write_table(pyarrow.table(batch, schema=first.schema))


#: ending -> function that writes such a file.
WRITERS: dict[str, Callable[[Iterator[Columns], Path], None]] = {
    ".csv": write_csv,
    ".npz": write_npz,
    ".parquet": write_parquet,
}
