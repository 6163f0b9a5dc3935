"""Files of predictions: written batch by batch, so that memory does not grow with the rows, but for .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

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
    """Write an array per column."""
    found = list(batches)
    arrays: Columns = {name: np.concatenate([np.asarray(batch[name]) for batch in found]) for name in found[0]}
    with zipfile.ZipFile(path, "w") as archive:  # For numpy.savez no array can be called file.
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


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
