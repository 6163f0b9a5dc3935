"""Means, intervals and paired comparisons of metrics over overlapping training parts, and the Pareto front.

The training parts of several folds or random splits share most of their rows, so their values are correlated and the
usual variance of their mean is far too small.  C. Nadeau and Y. Bengio, "Inference for the generalization error",
Machine Learning 52, 2003, replace 1/J by 1/J + (test rows)/(training rows); R. Bouckaert and E. Frank, "Evaluating the
replicability of significance tests for comparing learning algorithms", PAKDD 2004, use it for repeated folds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class Summary:
    """The statistics of J values of a metric.

    Attributes:
        count: J.
        mean: their mean.
        std: their standard deviation, J - 1 in the denominator; None for J = 1.
        low: lower end of the 95 % interval of the mean, which is cut to what is possible; None for J = 1.
        high: its upper end.
    """

    count: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """A paired comparison: the first minus the second, in the same J parts.

    Attributes:
        count: J.
        difference: the mean difference.
        low: lower end of its 95 % interval; None for J = 1.
        high: its upper end.
        p: of the corrected t-test, two-sided, of no difference; None for J = 1.
    """

    count: int
    difference: float
    low: float | None
    high: float | None
    p: float | None


def summarize(values: Sequence[float], test_share: float, limits: tuple[float, float] = (0.0, 1.0)) -> Summary:
    """Return mean, standard deviation and corrected 95 % interval of a metric.

    Args:
        values: one per part; at least one.
        test_share: test rows divided by all rows, above 0 and below 1.
        limits: the least and the greatest possible value, to which the interval is cut.
    """
    mean, std, error = _corrected(values, test_share)
    if error is None:
        return Summary(len(values), mean, None, None, None)
    half = _quantile(len(values)) * error
    return Summary(len(values), mean, std, max(limits[0], mean - half), min(limits[1], mean + half))


def compare(first: Sequence[float], second: Sequence[float], test_share: float) -> Comparison:
    """Compare accuracies of two models in the same parts by the corrected resampled t-test.

    Args:
        first: one per part; at least one.
        second: as many, in the same order.
        test_share: test rows divided by all rows, above 0 and below 1.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, _, error = _corrected(differences, test_share)
    count = len(differences)
    if error is None:
        return Comparison(count, mean, None, None, None)
    if error == 0:  # The same difference in every part.
        return Comparison(count, mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = _quantile(count) * error
    return Comparison(count, mean, mean - half, mean + half, 2 * float(stdtr(count - 1, -abs(mean) / error)))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order (S. Holm, Scand. J. Statist. 6, 1979)."""
    adjusted = [0.0] * len(values)
    greatest = 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        greatest = max(greatest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = greatest
    return adjusted


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (cost, gain) that no other beats, by rising cost.

    A point is beaten by one that costs no more and gains more, or costs less and gains as much.
    """
    front: list[int] = []
    best = -math.inf
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            front.append(i)
            best = points[i][1]
    return front


def _corrected(values: Sequence[float], test_share: float) -> tuple[float, float, float | None]:
    """Return mean, standard deviation, and the corrected standard error of the mean (None for a single value)."""
    if not 0 < test_share < 1:
        raise ValueError(f"test_share should be above 0 and below 1; found {test_share!r}")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0, None
    # Equal differences of accuracies differ in their last bits.
    std = 0.0 if np.ptp(values) < 1e-12 else float(np.std(values, ddof=1))
    return mean, std, std * math.sqrt(1 / len(values) + test_share / (1 - test_share))


def _quantile(count: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution with ``count - 1`` degrees of freedom."""
    return float(stdtrit(count - 1, 0.975))
