"""Robustness of a trained model: its accuracy on the test part with views missing or noisy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: Standard deviations of the noise on all views; a standardized column has 1.
NOISE = (0.5, 1.0, 2.0)

Views = list[npt.NDArray[Any]]


def robustness(
    predict: Callable[[Views], npt.NDArray[Any]],
    views: Mapping[str, npt.NDArray[Any]],
    target: npt.NDArray[np.int64],
    *,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Return accuracies for disturbed views, in plain JSON types.

    Args:
        predict: standardized views [(m, n_i)] -> classes (m,).
        views: name -> standardized view (m, n_i), the test part.
        target: (m,) the true classes.
        seed: of the noise, which is the same for models with the same seed and rows.

    Returns:
        ``missing`` and ``only``: by view, without it and with it alone, a missing view being replaced by its training
        mean, 0; ``noisy``: by view, with Gaussian noise of standard deviation 1 added to it; ``noise``: by standard
        deviation, with such noise on all views.
    """
    generator = np.random.default_rng(seed)
    clean = list(views.values())
    absent = [np.zeros_like(view) for view in clean]
    noise = [generator.standard_normal(view.shape).astype(view.dtype) for view in clean]

    def accuracy(chosen: Sequence[npt.NDArray[Any]]) -> float:
        return float(np.mean(predict(list(chosen)) == target))

    def swapped(i: int, base: Views, other: Views) -> Views:
        return [other[j] if j == i else base[j] for j in range(len(base))]

    noisy = [view + drawn for view, drawn in zip(clean, noise, strict=True)]
    return {
        "missing": {name: accuracy(swapped(i, clean, absent)) for i, name in enumerate(views)},
        "only": {name: accuracy(swapped(i, absent, clean)) for i, name in enumerate(views)},
        "noisy": {name: accuracy(swapped(i, clean, noisy)) for i, name in enumerate(views)},
        "noise": {
            f"{deviation:g}": accuracy([view + deviation * drawn for view, drawn in zip(clean, noise, strict=True)])
            for deviation in NOISE
        },
    }
