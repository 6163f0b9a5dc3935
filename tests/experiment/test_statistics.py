from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fusionkit.experiment.statistics import compare, holm, pareto, summarize

FIRST = [0.98, 0.97, 0.99, 0.985, 0.975, 0.98, 0.99, 0.97, 0.98, 0.985]
SECOND = [0.97, 0.965, 0.985, 0.99, 0.97, 0.975, 0.98, 0.97, 0.975, 0.98]


def test_the_interval_follows_nadeau_and_bengio() -> None:
    found = summarize(FIRST, 0.2)
    variance = np.var(FIRST, ddof=1) * (1 / 10 + 0.2 / 0.8)
    half = stats.t.ppf(0.975, 9) * math.sqrt(variance)
    assert found.mean == pytest.approx(np.mean(FIRST))
    assert found.std == pytest.approx(np.std(FIRST, ddof=1))
    assert found.low == pytest.approx(np.mean(FIRST) - half)
    assert found.high == pytest.approx(np.mean(FIRST) + half)


def test_the_interval_of_an_accuracy_is_cut_to_0_to_1() -> None:
    high, low = summarize([0.99, 0.97], 0.2), summarize([0.01, 0.03], 0.2)
    half = stats.t.ppf(0.975, 1) * np.std([0.99, 0.97], ddof=1) * math.sqrt(0.75)
    assert (high.high, low.low) == (1.0, 0.0)
    assert high.low == pytest.approx(0.98 - half)
    assert low.high == pytest.approx(0.02 + half)


def test_a_vanishing_test_part_gives_the_usual_paired_t_test() -> None:
    found = compare(FIRST, SECOND, 1e-12)
    usual = stats.ttest_rel(FIRST, SECOND)
    assert found.p == pytest.approx(usual.pvalue)
    interval = usual.confidence_interval(0.95)
    assert found.low == pytest.approx(interval.low)
    assert found.high == pytest.approx(interval.high)
    assert found.difference == pytest.approx(np.mean(FIRST) - np.mean(SECOND))


def test_overlap_makes_the_test_less_sure() -> None:
    usual, corrected = compare(FIRST, SECOND, 1e-12), compare(FIRST, SECOND, 0.2)
    assert usual.p is not None
    assert corrected.p is not None
    assert corrected.p > usual.p
    # t shrinks by sqrt(1 + J * test / training) = sqrt(1 + 10 * 0.25).
    t = stats.ttest_rel(FIRST, SECOND).statistic / math.sqrt(3.5)
    assert corrected.p == pytest.approx(2 * stats.t.sf(t, 9))


def test_a_comparison_has_two_sides() -> None:
    one, other = compare(FIRST, SECOND, 0.2), compare(SECOND, FIRST, 0.2)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p == pytest.approx(other.p)


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.01, 0.0)])
def test_equal_differences(shift: float, p: float) -> None:
    found = compare([value + shift for value in SECOND], SECOND, 0.2)
    assert found.p == p
    assert found.low == pytest.approx(shift)
    assert found.high == pytest.approx(shift)


def test_a_single_part_says_nothing_about_its_spread() -> None:
    alone, pair = summarize([0.9], 0.2), compare([0.9], [0.8], 0.2)
    assert (alone.mean, alone.std, alone.low, alone.high) == (0.9, None, None, None)
    assert (pair.low, pair.high, pair.p) == (None, None, None)
    assert pair.difference == pytest.approx(0.1)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match=r"^test_share should be above 0 and below 1; found"):
        summarize(FIRST, share)


def test_different_numbers_of_parts_are_not_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare(FIRST, SECOND[1:], 0.2)


def test_holm() -> None:
    # By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, and 0.06 again because the sequence may not fall.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_pareto_against_the_definition() -> None:
    generator = np.random.default_rng(0)
    points = [(float(a), float(b)) for a, b in generator.integers(0, 12, (60, 2))]

    def beaten(point: tuple[float, float]) -> bool:
        return any(other[0] <= point[0] and other[1] >= point[1] and other != point for other in points)

    front = pareto(points)
    assert {points[i] for i in front} == {point for point in points if not beaten(point)}
    assert len({points[i] for i in front}) == len(front)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
    assert pareto([]) == []


def test_an_interval_is_cut_to_what_the_metric_can_be() -> None:
    values, free = [0.5, 1.5, 4.0], (-1e9, 1e9)
    whole = summarize(values, 0.2, free)
    assert whole.low is not None
    assert whole.low < 0 < 1 < (whole.high or 0)
    assert (summarize(values, 0.2).low, summarize(values, 0.2).high) == (0.0, 1.0)
    cut = summarize(values, 0.2, (0.0, 1e9))
    assert (cut.low, cut.high, cut.mean) == (0.0, whole.high, 2.0)
    assert cut.std == pytest.approx(1.802775637732)
