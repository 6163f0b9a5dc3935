"""Real data sets that scikit-learn ships, split into views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_digits

Arrays = dict[str, npt.NDArray[Any]]


def digits() -> Arrays:
    """Return 1797 images (8, 8) of handwritten digits as four views of width 16, their quadrants, and ``label``.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998, the test part.
    """
    found = load_digits()
    halves = slice(0, 4), slice(4, 8)
    names = ("top_left", "top_right", "bottom_left", "bottom_right")
    parts = [found.images[:, rows, columns].reshape(-1, 16) for rows in halves for columns in halves]
    return {**dict(zip(names, parts, strict=True)), "label": found.target}


def breast_cancer() -> Arrays:
    """Return ten features of the cell nuclei in 569 images as three views of width 10, and ``label``.

    The views are each feature's ``mean``, its standard ``error`` and its ``worst`` (the mean of the three largest).
    Source: W. Wolberg et al., "Breast Cancer Wisconsin (Diagnostic)", UCI, 1995.
    """
    found = load_breast_cancer()
    views = dict(zip(("mean", "error", "worst"), np.split(found.data, 3, axis=1), strict=True))
    return {**views, "label": np.asarray(found.target_names)[found.target]}


#: name -> the views and ``label``, as a ``.npz`` file would hold them.
DATASETS: dict[str, Callable[[], Arrays]] = {"digits": digits, "breast_cancer": breast_cancer}
