"""Robustness of a trained model: its score on the test part with views missing or noisy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fusionkit.experiment.view_dropout import ViewDropout

#: Standard deviations of the noise on all views; a standardized column has 1.
NOISE = (0.5, 1.0, 2.0)
#: Rates at which the views of each row are missing, and the number of draws that are averaged.
RATES = (0.1, 0.3, 0.5, 0.7)
DRAWS = 5

Views = list[npt.NDArray[Any]]
Mask = npt.NDArray[np.bool_]


def robustness(
    score: Callable[[Views, Mask | None], float | None],
    views: Mapping[str, npt.NDArray[Any]],
    *,
    seed: int,
    mask: Mask | None = None,
    refuses: bool = False,
) -> dict[str, dict[str, float | None]]:
    """Return scores for disturbed views, in plain JSON types.

    Args:
        score: standardized views [(m, n_i)] and a mask (m, k), None where all are present -> a metric, None where it is
            undefined.
        views: name -> standardized view (m, n_i), the test part.
        seed: of noise and absence, which are the same for models with the same seed, rows and views.
        mask: (m, k), True where a view of a row is present; None: all are.
        refuses: whether the model refuses masks; its scores with missing views are None.

    Returns:
        ``missing`` and ``only``: by view, without it and with it alone; ``missing_rate``: by the rate at which the
        views of each row are missing, one being kept, the mean of ``DRAWS`` draws; ``noisy``: by view, with Gaussian
        noise of standard deviation 1 added to it; ``noise``: by standard deviation, with such noise on all views.
    """
    generator = np.random.default_rng(seed)
    clean = list(views.values())
    noise = [generator.standard_normal(view.shape).astype(view.dtype) for view in clean]
    known = np.ones((len(clean[0]), len(clean)), dtype=bool) if mask is None else mask

    def noisy(i: int) -> Views:
        return [*clean[:i], clean[i] + noise[i], *clean[i + 1 :]]

    masked = {
        kind: {name: None if refuses else _mean(score(clean, mask) for mask in masks) for name, masks in of.items()}
        for kind, of in _masks(known, list(views), seed).items()
    }
    return {
        **masked,
        "noisy": {name: score(noisy(i), mask) for i, name in enumerate(views)},
        "noise": {
            f"{deviation:g}": score([view + deviation * drawn for view, drawn in zip(clean, noise, strict=True)], mask)
            for deviation in NOISE
        },
    }


def _mean(scores: Iterable[float | None]) -> float | None:
    found = [score for score in scores if score is not None]
    return fmean(found) if found else None


def _masks(known: Mask, names: list[str], seed: int) -> dict[str, dict[str, list[Mask]]]:
    """Return the masks (m, k) whose scores are averaged, by kind of absence, then by view or rate."""
    alone = np.eye(len(names), dtype=bool)
    present, generator = torch.from_numpy(known), torch.Generator().manual_seed(seed)
    return {
        "missing": {name: [known & ~alone[i]] for i, name in enumerate(names)},
        "only": {name: [known & alone[i]] for i, name in enumerate(names)},
        "missing_rate": {
            f"{rate:g}": [ViewDropout(rate)(present, generator).numpy() for _ in range(DRAWS)] for rate in RATES
        },
    }
