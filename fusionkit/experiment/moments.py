"""Mean and scale of the columns of a view: of an array at once, or from blocks of its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Columns = npt.NDArray[np.float64]

#: Columns whose greatest exponent of two is beyond this are scaled, so that squares neither overflow nor underflow.
_EXPONENT = 256


def moments(view: npt.NDArray[np.float64]) -> tuple[Columns, Columns]:
    """Return mean and scale of the columns of (m, n_i): the numbers of scikit-learn's ``StandardScaler``."""
    m = len(view)
    exponent = np.frexp(np.abs(view).max(0))[1]
    view = np.ldexp(view, -exponent)  # Exact; squares of values up to 1 neither overflow nor underflow.
    mean = view.sum(0) / m
    centred = view - mean
    rest = centred.sum(0)  # Not zero, because the mean is rounded: the variance is corrected by it.
    variance = ((centred**2).sum(0) - rest**2 / m) / m
    return _scaled(m, mean, variance, exponent)


def _scaled(m: int, mean: Columns, variance: Columns, exponent: npt.NDArray[Any]) -> tuple[Columns, Columns]:
    """Return mean and scale times a power of two; the scale of a constant column is 1."""
    eps = np.finfo(np.float64).eps
    constant = variance <= m * eps * variance + (m * mean * eps) ** 2  # Up to rounding errors.
    scale = np.ldexp(np.sqrt(variance), exponent)
    return np.ldexp(mean, exponent), np.where(constant | (scale == 0), 1.0, scale)


class Moments:
    """Mean and scale of the columns of a view (m, n_i), whose rows are added in blocks.

    A NaN counts as the mean of its column.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for Computing the Sample Variance", The American
    Statistician 37 (1983), eq. 2.1.

    Args:
        width: n_i.

    Attributes:
        rows: how many were added.
        known: the number of values in each column that are not NaN, (n_i,).
        low: the least value of each column.
        high: the greatest.
    """

    def __init__(self, width: int) -> None:
        self.rows, self.known = 0, np.zeros(width, dtype=np.int64)
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)
        # Of the distances from the first value of each column, times 2**-exponent: their means, and the sums of the
        # squared distances from those.  With the values themselves, a large offset would cancel between blocks.
        self._first, self._exponent = np.zeros(width), np.zeros(width, dtype=np.int64)
        self._mean, self._squares = np.zeros(width), np.zeros(width)

    def add(self, block: npt.NDArray[Any]) -> None:
        """Add rows (b, n_i)."""
        if not len(block):
            return
        values = block.astype(np.float64)
        low, high = np.fmin.reduce(values), np.fmax.reduce(values)
        missing = np.isnan(values) if np.isnan(values.min(0)).any() else None
        count = np.full(len(low), len(values)) if missing is None else len(values) - missing.sum(0)
        start = values[0] if missing is None else values[missing.argmin(0), np.arange(len(low))]
        self._first = np.where((self.known == 0) & (count > 0), start, self._first)
        extent = np.fmax(np.maximum(np.abs(low), np.abs(high)), np.abs(self._first))
        exponent = np.frexp(extent)[1].astype(np.int64)
        exponent[np.abs(exponent) <= _EXPONENT] = 0
        if exponent.any():
            values = np.ldexp(values, -exponent)
        values -= np.ldexp(self._first, -exponent)
        if missing is not None:
            values[missing] = 0.0
        mean = values.sum(0) / np.maximum(count, 1)
        values -= mean
        if missing is not None:
            values[missing] = 0.0
        rest = values.sum(0)  # Not zero, because the mean is rounded.
        squares = np.einsum("ij,ij->j", values, values) - rest**2 / np.maximum(count, 1)
        self.rows += len(block)
        self.low, self.high = np.fmin(self.low, low), np.fmax(self.high, high)
        self._combine(count, mean, squares, exponent)

    def merge(self, other: Moments) -> None:
        """Add the rows of another one."""
        self._first = np.where((self.known == 0) & (other.known > 0), other._first, self._first)
        shift = np.ldexp(other._first, -other._exponent) - np.ldexp(self._first, -other._exponent)
        self.rows += other.rows
        self.low, self.high = np.fmin(self.low, other.low), np.fmax(self.high, other.high)
        self._combine(other.known, other._mean + shift, other._squares, other._exponent)

    def _combine(
        self, count: npt.NDArray[np.int64], mean: Columns, squares: Columns, exponent: npt.NDArray[np.int64]
    ) -> None:
        """Take the numbers of a block: of its known values, their means and squared distances, by a power of two."""
        unit = np.where(self.known > 0, np.maximum(exponent, self._exponent), exponent)
        unit = np.where(count > 0, unit, self._exponent)
        own, other = self._exponent - unit, exponent - unit
        before, distance = np.ldexp(self._mean, own), np.ldexp(mean, other) - np.ldexp(self._mean, own)
        share = count / np.maximum(self.known + count, 1)
        self._mean = before + distance * share
        between = distance**2 * (self.known * share)
        self._squares = np.ldexp(self._squares, 2 * own) + np.ldexp(squares, 2 * other) + between
        self._exponent, self.known = unit, self.known + count

    def result(self) -> tuple[Columns, Columns]:
        """Return mean and scale of the columns; a constant column has scale 1."""
        mean = self._mean + np.ldexp(self._first, -self._exponent)
        return _scaled(self.rows, mean, self._squares / max(self.rows, 1), self._exponent)
