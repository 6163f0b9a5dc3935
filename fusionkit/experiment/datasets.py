"""The data sets of the core: mfeat, which fusionkit ships, and real data that scikit-learn ships, split into views.

Each function takes ``data.path``, which should be None, and imports scikit-learn when it is called.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionkit.errors import ConfigError

Arrays = dict[str, npt.NDArray[Any]]


def mfeat(path: str | None = None) -> Path:
    """Return the ``.npz`` file with six sets of features of 2000 handwritten digits, and ``label``.

    Source: R. Duin, "Multiple Features", UCI, 1998.
    """
    _refuse(path, "mfeat")
    return Path(__file__).parents[1] / "data" / "mfeat.npz"


def digits(path: str | None = None) -> Arrays:
    """Return 1797 images (8, 8) of handwritten digits as four views of width 16, their quadrants, and ``label``.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998, the test part.
    """
    found = _of_scikit_learn("digits", path)
    halves = slice(0, 4), slice(4, 8)
    names = ("top_left", "top_right", "bottom_left", "bottom_right")
    parts = [found.images[:, rows, columns].reshape(-1, 16) for rows in halves for columns in halves]
    return {**dict(zip(names, parts, strict=True)), "label": found.target}


def breast_cancer(path: str | None = None) -> Arrays:
    """Return ten features of the cell nuclei in 569 images as three views of width 10, and ``label``.

    The views are each feature's ``mean``, its standard ``error`` and its ``worst`` (the mean of the three largest).
    Source: W. Wolberg et al., "Breast Cancer Wisconsin (Diagnostic)", UCI, 1995.
    """
    found = _of_scikit_learn("breast_cancer", path)
    views = dict(zip(("mean", "error", "worst"), np.split(found.data, 3, axis=1), strict=True))
    return {**views, "label": np.asarray(found.target_names)[found.target]}


def diabetes(path: str | None = None) -> Arrays:
    """Return 442 patients as two views, and as ``label`` a number for the progression of the disease after a year.

    The views are ``body`` (age, sex, body mass index, blood pressure) and ``serum`` (six measurements), in their units.
    Source: B. Efron et al., "Least Angle Regression", Annals of Statistics, 2004.
    """
    found = _of_scikit_learn("diabetes", path, scaled=False)
    return {"body": found.data[:, :4], "serum": found.data[:, 4:], "label": found.target}


def linnerud(path: str | None = None) -> Arrays:
    """Return 20 men as two views, and as ``label`` (20, 3) their weight, waist and pulse.

    The views are ``strength`` (chin-ups, sit-ups) and ``jumps``.
    Source: A. C. Linnerud, NC State University; in M. Tenenhaus, "La régression PLS", 1998.
    """
    found = _of_scikit_learn("linnerud", path)
    return {"strength": found.data[:, :2], "jumps": found.data[:, 2:], "label": found.target}


def _of_scikit_learn(name: str, path: str | None, **options: Any) -> Any:
    """Return what scikit-learn loads under this name; its import takes longer than a short run."""
    _refuse(path, name)
    return getattr(import_module("sklearn.datasets"), f"load_{name}")(**options)


def _refuse(path: str | None, name: str) -> None:
    if path is not None:
        raise ConfigError(f"data.path should be null for data={name}, which is installed; found {path!r}.")
