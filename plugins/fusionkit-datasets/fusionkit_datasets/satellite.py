"""Statlog's Landsat images, of R's mlbench."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rdata
from fusionkit import FusionError

from fusionkit_datasets.places import located, unreadable

FILE = "Satellite.rda"
#: Of Debian's package, of R's `install.packages` as root, and of an R that has it built in.
PLACES = tuple(
    Path(library, "mlbench", "data")
    for library in ("/usr/lib/R/site-library", "/usr/local/lib/R/site-library", "/usr/lib/R/library")
)
BANDS = ("green", "red", "infrared_1", "infrared_2")
PIXELS = 9


def satellite(path: str | None) -> dict[str, npt.NDArray[Any]]:
    """Return 6435 neighbourhoods of 3 x 3 pixels as a view of width 9 per spectral band, and ``label``, six soils.

    The pixels of a view go from left to right and from the top down; the label is that of the middle one.

    Raises:
        FusionError: the file is not there, or is another one.
    """
    file = located(path, FILE, PLACES, "satellite", "apt install r-cran-mlbench")
    columns = [f"x.{i}" for i in range(1, len(BANDS) * PIXELS + 1)]
    frame = _objects(file).get("Satellite")
    found = list(getattr(frame, "columns", []))
    if frame is None or not {*columns, "classes"} <= {*found}:
        what = f"the columns {', '.join(map(str, found))}" if found else "no such data frame"
        should = f"the data frame Satellite with the columns x.1 to {columns[-1]} and classes"
        raise FusionError(f"{file} should contain {should}; found {what}.")
    try:
        # The four bands of the first pixel, then those of the second, and so on.
        values = frame[columns].to_numpy(np.float64).reshape(-1, PIXELS, len(BANDS))
        label = frame["classes"].to_numpy(np.str_)
    except (TypeError, ValueError) as error:
        raise unreadable(file, "a data frame of numbers with a column of classes", error) from error
    return {"label": label, **{band: values[:, :, i].copy() for i, band in enumerate(BANDS)}}


def _objects(file: Path) -> dict[str, Any]:
    """Return the objects of an .rda file by name.

    Raises:
        FusionError: rdata cannot read it.
    """
    try:
        with warnings.catch_warnings():  # Of odd objects, which the caller refuses.
            warnings.simplefilter("ignore")
            found = rdata.read_rda(file, default_encoding="utf-8")
    except Exception as error:  # Whatever its parser and the decompression raise.
        raise unreadable(file, "an .rda file of R", error) from error
    return found if isinstance(found, dict) else {}
