"""Draws rows by a seed: stratified by class where there are classes, and whole groups where there are groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]
Taken = npt.NDArray[np.bool_]

#: Few groups are drawn again where a draw is far off; ten thousand or more are not: one draw takes long, and is near.
_ATTEMPTS = 10_000


def draw_rows(strata: Rows | None, rows: int, held: int, seed: int) -> tuple[Rows, Rows]:
    """Return the rows that stay and the ``held`` that are held out, as scikit-learn's ``train_test_split`` draws them.

    Its import takes longer than a short run.

    Args:
        strata: (rows,), the class of each row; None: there are none.
        rows: how many there are.
        held: how many of them are held out.
        seed: of the draw.
    """
    random = np.random.RandomState(seed)
    if strata is None:
        order = random.permutation(rows)
        return order[held:], order[:held]
    counts = np.bincount(strata)
    members = np.split(np.argsort(strata, kind="stable"), np.cumsum(counts)[:-1])
    in_training = _shares(counts, rows - held, random)
    in_test = _shares(counts - in_training, held, random)
    train, test = [], []
    for own, first, second in zip(members, in_training, in_test, strict=True):
        shuffled = own[random.permutation(len(own))]
        train.append(shuffled[:first])
        test.append(shuffled[first : first + second])
    return random.permutation(np.concatenate(train)), random.permutation(np.concatenate(test))


def _shares(counts: Rows, total: int, random: np.random.RandomState) -> Rows:
    """Return ``total`` rows divided among classes in proportion to ``counts``; lots decide between equal remainders."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    missing = int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        (alike,) = np.nonzero(remainders == remainder)
        drawn = random.choice(alike, size=min(len(alike), missing), replace=False)
        shares[drawn] += 1
        missing -= len(drawn)
    return np.asarray(shares, dtype=np.int64)


def draw_groups(strata: Rows | None, groups: Rows, size: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows that stay and those that are held out, both in ascending order; no group is on both sides.

    scikit-learn's StratifiedGroupKFold has sizes 1/2, 1/3, ... alone, and may leave a class out of a side.

    Args:
        strata: (rows,), the class of each row; each is in two groups or more.  None: all rows are of one class.
        groups: (rows,), indices of the groups; there are two or more.
        size: the share of the rows that are held out, above 0 and below 1.
        seed: of the draw.
    """
    counts = _table(np.zeros_like(groups) if strata is None else strata, groups)
    found = (counts > 0).sum(0)
    # Two groups of a class stay where it has three, so that a validation part can be drawn from those that stay.
    least, most = np.ones_like(found), np.maximum(found - 2, 1)
    if size > 0.5:
        least, most = found - most, found - least
    taken = _Side(counts, min(size, 1 - size), least, most).draw(np.random.RandomState(seed))
    held = (taken if size <= 0.5 else ~taken)[groups]
    return np.flatnonzero(~held), np.flatnonzero(held)


def _table(strata: Rows, groups: Rows) -> Counts:
    """Return the number of rows of each group (G) and class (C): (G, C)."""
    shape = groups.max() + 1, strata.max() + 1
    cells = np.bincount(groups * shape[1] + strata, minlength=shape[0] * shape[1])
    return cells.reshape(shape).astype(np.float64)


@dataclass(frozen=True)
class _Side:
    """The smaller side of a split of G groups with rows of C classes.

    Attributes:
        counts: (G, C), rows.
        share: of the rows, at most 1/2.
        least: (C,), the number of groups of a class that the side has at least.
        most: (C,), the number of groups of a class that it has at most.
    """

    counts: Counts
    share: float
    least: Rows
    most: Rows

    def draw(self, random: np.random.RandomState) -> Taken:
        """Return the first draw that is off by 1 % or half of a usual group at most, else the best of up to ten."""
        groups, usual = len(self.counts), np.median(self.counts.sum(1)) / self.counts.sum()
        best, worth = self._attempt(random)
        for _ in range(min(_ATTEMPTS // groups, 9)):
            if worth <= 2 * max(0.01, usual / 2) ** 2:
                break
            other, then = self._attempt(random)
            if then < worth:
                best, worth = other, then
        return best

    def _attempt(self, random: np.random.RandomState) -> tuple[Taken, float]:
        """Take groups in random order while that is better, those too large last; then change sides, one by one."""
        taken: Taken = np.zeros(len(self.counts), dtype=bool)
        present = self.counts > 0
        sums, number = np.zeros_like(self.counts[0]), np.zeros_like(self.least)
        order = random.permutation(len(taken))
        large = np.any(self.counts > np.maximum(1.5 * self.share * self._total, 1), axis=1)
        worth, changed, candidates = self._badness(sums, number), True, order[~large[order]]
        while changed:
            changed = len(candidates) < len(order)
            for one in candidates:
                sign = -1 if taken[one] else 1
                after = sums + sign * self.counts[one], number + sign * present[one]
                if (then := self._badness(*after)) < worth - 1e-12:
                    taken[one], worth, changed = not taken[one], then, True
                    sums, number = after
            candidates = order
        return taken, worth

    def _badness(self, sums: Counts, number: Rows) -> float:
        """Return how far off a side with these numbers of rows and groups of each class is, both (C,)."""
        outside = np.maximum(self.least - number, 0) + np.maximum(number - self.most, 0)
        off = (sums / self._total - self.share) ** 2
        return float(off.mean() + (sums.sum() / self._total.sum() - self.share) ** 2 + 10 * outside.sum())

    @cached_property
    def _total(self) -> Counts:
        total: Counts = self.counts.sum(0)
        return total
