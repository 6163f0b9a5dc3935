"""Mean and scale from blocks, against numpy on the whole array."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fusionkit.experiment.moments import Moments, moments

View = npt.NDArray[np.float64]


def of_blocks(view: npt.NDArray[np.generic], rows: int) -> Moments:
    found = Moments(view.shape[1])
    for start in range(0, len(view), rows):
        found.add(view[start : start + rows])
    return found


def wide_range() -> View:
    """Return columns of usual numbers, large offsets, large and small numbers, and a sorted one."""
    random = np.random.default_rng(0)
    usual = random.standard_normal((101, 1))
    columns = [usual, 1e9 + usual, 1e300 * usual, 1e-300 * usual, np.sort(usual, 0), 1e5 * usual**3]
    return np.hstack(columns)


@pytest.mark.parametrize("count", [2, 5, 200])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_merged_ones_have_the_moments_of_the_whole(count: int, missing: float) -> None:
    view = wide_range()
    view[np.random.default_rng(1).random(view.shape) < missing] = np.nan
    first, *others = (of_blocks(view[i::count], 7) for i in range(count))  # Of 200 most have no row or one.
    for other in others:
        first.merge(other)
    whole = of_blocks(view, 7)
    np.testing.assert_allclose(first.result(), whole.result(), rtol=1e-12)
    assert (first.rows, first.known.tolist()) == (whole.rows, whole.known.tolist())
    np.testing.assert_array_equal([first.low, first.high], [whole.low, whole.high])


@pytest.mark.parametrize("rows", [1, 7, 100, 101, 1000])
def test_blocks_have_the_moments_of_the_whole(rows: int) -> None:
    view = wide_range()
    mean, scale = of_blocks(view, rows).result()
    exact = view.astype(np.longdouble)
    np.testing.assert_allclose(mean, exact.mean(0).astype(float), rtol=1e-12)
    np.testing.assert_allclose(scale, exact.std(0).astype(float), rtol=1e-12)
    np.testing.assert_allclose([mean, scale], moments(view), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, np.uint8, np.bool_])
def test_sums_of_narrow_types_are_float64(dtype: type[np.generic]) -> None:
    view = (np.random.default_rng(1).uniform(0, 200, (999, 3))).astype(dtype)
    mean, scale = of_blocks(view, 10).result()
    np.testing.assert_allclose(mean, view.astype(np.float64).mean(0), rtol=1e-12)
    spread = view.astype(np.float64).std(0)
    np.testing.assert_allclose(scale, np.where(spread > 0, spread, 1.0), rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -7e15, 3e-310, 1e308])
def test_a_constant_column_has_scale_1(value: float) -> None:
    mean, scale = of_blocks(np.full((1001, 1), value), 10).result()
    np.testing.assert_allclose(mean, value, rtol=1e-12)
    assert scale.tolist() == [1.0]


def test_a_missing_value_counts_as_the_mean() -> None:
    view = np.random.default_rng(2).normal(5, 3, (60, 4))
    view[np.random.default_rng(3).random(view.shape) < 0.4] = np.nan
    view[20:40, 1] = np.nan  # Whole blocks without any.
    view[:20, 2] = np.nan
    filled = np.where(np.isnan(view), np.nanmean(view, 0), view)
    found = of_blocks(view, 10)
    np.testing.assert_allclose(found.result(), [filled.mean(0), filled.std(0)], rtol=1e-12)
    assert found.known.tolist() == (~np.isnan(view)).sum(0).tolist()
    assert found.rows == 60
    np.testing.assert_array_equal([found.low, found.high], [np.nanmin(view, 0), np.nanmax(view, 0)])


def test_values_of_very_different_size_in_different_blocks() -> None:
    view = np.array([[1e-300, 1e300], [2e-300, 2e300], [1.0, 1.0], [3.0, 3.0], [1e-290, 1e-300]])
    mean, scale = of_blocks(view, 2).result()
    np.testing.assert_allclose(mean, [0.8, 6e299], rtol=1e-12)
    np.testing.assert_allclose(scale, [np.std([0, 0, 1, 3, 0]), 1e300 * np.std([1, 2, 0, 0, 0])], rtol=1e-12)


def test_no_rows_change_nothing() -> None:
    found = of_blocks(np.arange(6.0).reshape(3, 2), 2)
    before = [one.tolist() for one in found.result()]
    found.add(np.empty((0, 2)))
    assert [one.tolist() for one in found.result()] == before
