"""Which view matters to a trained model: what its metric loses when the values of a view are permuted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusionkit.experiment.metrics import rank_value
from fusionkit.experiment.source import Rows

if TYPE_CHECKING:
    from fusionkit.experiment.robustness import Mask, Views  # It imports torch.

#: How often a view is permuted.
DRAWS = 10
#: The 97.5 % quantile of Student's t distribution with DRAWS - 1 degrees of freedom; scipy is slow to import.
_QUANTILE = 2.262157162798205

Score = Callable[["Views", "Mask | None"], float | None]
Importance = dict[str, dict[str, float | None]]


def importance(
    metric: str,
    score: Score,
    views: Mapping[str, npt.NDArray[Any]],
    whole: float | None,
    *,
    seed: int,
    mask: Mask | None = None,
    refuses: bool = False,
) -> Importance:
    """Return how much each view matters, in plain JSON types.

    Source: L. Breiman, "Random Forests", Machine Learning 45, 2001, section 10; the difference of the metrics is that
    of A. Fisher, C. Rudin, F. Dominici, "All Models are Wrong, but Many are Useful", JMLR 20, 2019, section 3.

    Args:
        metric: what is measured.
        score: views [(m, n_i)] and a mask (m, k), None where all are present -> the metric, None where it is undefined.
        views: name -> standardized view (m, n_i).
        whole: the metric of the views as they are.
        seed: of the permutations; all views are permuted by the same ones.
        mask: (m, k), True where a view of a row is present; None: all are.
        refuses: whether the model refuses masks.

    Returns:
        By view: ``loss``, by how much the metric gets worse when the view is permuted among the rows that have it, so
        that each row keeps its mask, the mean of ``DRAWS`` draws; ``low`` and ``high``, the 95 % interval of that mean
        for these rows and this model, as it covers the draws of the permutation only; ``without``, the metric with the
        view absent from every row.  None: undefined, fewer than two rows have the view, or the model refuses masks.
    """
    given = list(views.values())
    known = np.ones((len(given[0]), len(given)), dtype=bool) if mask is None else mask
    generator, columns = np.random.default_rng(seed), np.arange(len(given))
    orders = [generator.permutation(len(known)) for _ in range(DRAWS)]
    found: Importance = {}
    for i, name in enumerate(views):
        drawn = orders if known[:, i].sum() > 1 else []
        losses = [_loss(metric, whole, score(_permuted(given, i, known[:, i], order), mask)) for order in drawn]
        found[name] = dict(zip(("loss", "low", "high"), _mean_interval(losses), strict=True))
        found[name]["without"] = None if refuses else score(given, known & (columns != i))
    return found


def _permuted(views: Views, i: int, known: npt.NDArray[np.bool_], order: Rows) -> Views:
    """Return the views, with the rows of view i that are known in a random ``order``."""
    permuted = views[i].copy()
    permuted[np.flatnonzero(known)] = views[i][order[known[order]]]
    return [*views[:i], permuted, *views[i + 1 :]]


def _loss(metric: str, whole: float | None, found: float | None) -> float | None:
    return None if whole is None or found is None else rank_value(metric, whole) - rank_value(metric, found)


def _mean_interval(losses: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Return the mean of ``DRAWS`` losses and its 95 % interval; None where there are none, or one is undefined."""
    numbers = [loss for loss in losses if loss is not None]
    if not numbers or len(numbers) < len(losses):
        return None, None, None
    if min(numbers) == max(numbers):  # Rounding would make an interval.
        return numbers[0], numbers[0], numbers[0]
    mean, half = fmean(numbers), _QUANTILE * stdev(numbers) / math.sqrt(DRAWS)
    return mean, mean - half, mean + half


def ranked(views: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the views of a record, the one that matters most first; those whose loss is unknown last."""

    def place(name: str) -> float:
        loss = views[name]["loss"]
        return math.inf if loss is None else -loss

    return {name: views[name] for name in sorted(views, key=place)}


def worse(metric: str) -> str:
    """Return what a metric does that gets worse."""
    return "rises" if rank_value(metric, 1.0) < 0 else "falls"
