"""Tiny files of the form of the real ones, and the real ones where they are."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import fusionkit
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rdata

from fusionkit_datasets.plugin import DATASETS
from fusionkit_datasets.satellite import FILE


def write_satellite(folder: Path, rows: int = 8, **changes: Any) -> Path:
    """Write an .rda file whose column x.j has j + 100 * row in each row; return its path."""
    columns = {f"x.{j}": j + 100.0 * np.arange(rows) for j in range(1, 37)}
    classes = pd.Categorical([("grey soil", "red soil")[i % 2] for i in range(rows)])
    objects = {"Satellite": pd.DataFrame({**columns, "classes": classes}), **changes}
    rdata.write_rda(folder / FILE, objects)
    return folder / FILE


def write_mnist(file: Path, rows: int = 8, **changes: Any) -> Path:
    """Write an HDF5 file with one group more than what is read; None in ``changes`` leaves an array out."""
    views = {f"View{i}": i + np.arange(rows * 192.0).reshape(rows, 192) for i in range(4)}
    arrays = {"Labels": np.arange(rows, dtype=np.uint8) % 2, **views, **changes}
    with h5py.File(file, "w") as opened:
        for name, array in arrays.items():
            if array is not None:
                opened[name] = array
        opened["Metadata/sample_ids"] = np.array([b"0_2"] * rows)
    return file


def write_idx(file: Path, values: npt.NDArray[Any], head: bytes = b"", more: bytes = b"") -> None:
    """Write a gzipped idx file of bytes."""
    sizes = b"".join(size.to_bytes(4) for size in values.shape)
    head = head or bytes((0, 0, 8, values.ndim))
    file.write_bytes(gzip.compress(head + sizes + values.astype(np.uint8).tobytes() + more))


def pictures(rows: int) -> npt.NDArray[Any]:
    """Return images (rows, 28, 28) whose pixel (i, y, x) is (3 i + 5 y + x) mod 251."""
    i, y, x = np.ogrid[:rows, :28, :28]
    return np.asarray((3 * i + 5 * y + x) % 251)


def write_fashion(folder: Path, rows: Mapping[str, int] | None = None) -> Path:
    """Write the four files; return the folder."""
    for begin, count in (rows or {"train": 8, "t10k": 4}).items():
        write_idx(folder / f"{begin}-images-idx3-ubyte.gz", pictures(count))
        write_idx(folder / f"{begin}-labels-idx1-ubyte.gz", np.arange(count) % 2)
    return folder


def real(name: str) -> tuple[str | None, dict[str, Any]]:
    """Return ``data.path`` and the arrays of a real set, where FUSIONKIT_NAME says, or where it is installed.

    Without the variable, a set that is not there skips the test.
    """
    path = os.environ.get(f"FUSIONKIT_{name.upper()}")
    try:
        return path, target(name)(path)
    except fusionkit.FusionError as error:
        if path is not None:
            raise
        pytest.skip(str(error))


def target(name: str) -> Any:
    """Return the function of a data set."""
    module, _, function = str(DATASETS[name].target).partition(":")
    return getattr(import_module(module), function)
