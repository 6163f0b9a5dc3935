"""Draws rows by a seed: stratified by class where there are classes, and whole groups where there are groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionkit.experiment.source import Rows

Counts = npt.NDArray[np.float64]

#: Groups are drawn up to nine times more while the draw is inaccurate; of 10,000 groups one draw is slow and accurate.
_ATTEMPTS = 10_000


def draw_some(rows: Rows, most: int, seed: int) -> Rows:
    """Return the rows, or ``most`` of them, chosen by the seed, in their order."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False, shuffle=False))]


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
    # Shuffled in place: of many millions of rows, copies would take most of the memory of a run.
    train, test = np.empty(rows - held, dtype=np.int64), np.empty(held, dtype=np.int64)
    trained = tested = 0
    for own, first, second in zip(members, in_training.tolist(), in_test.tolist(), strict=True):
        shuffled = own[random.permutation(len(own))]
        train[trained : trained + first] = shuffled[:first]
        test[tested : tested + second] = shuffled[first : first + second]
        trained, tested = trained + first, tested + second
    random.shuffle(train)
    random.shuffle(test)
    return train, test


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
    strata = np.zeros_like(groups) if strata is None else strata
    counts = np.zeros((groups.max() + 1, strata.max() + 1))
    np.add.at(counts, (groups, strata), 1)
    found = (counts > 0).sum(0)
    # Two groups of a class stay where it has three, so that a validation part can be drawn from those that stay.
    least, most = np.ones_like(found), np.maximum(found - 2, 1)
    if size > 0.5:  # Draw the smaller side.
        least, most = found - most, found - least
    random, usual = np.random.RandomState(seed), np.median(counts.sum(1)) / len(groups)
    best, badness = _draw_side(counts, min(size, 1 - size), least, most, random)
    for _ in range(min(_ATTEMPTS // len(counts), 9)):
        if badness <= 2 * max(0.01, usual / 2) ** 2:  # Off by 1 % or half of a usual group.
            break
        other = _draw_side(counts, min(size, 1 - size), least, most, random)
        best, badness = min((best, badness), other, key=lambda one: one[1])
    held = (best if size <= 0.5 else ~best)[groups]
    return np.flatnonzero(~held), np.flatnonzero(held)


def _draw_side(
    counts: Counts, share: float, least: Rows, most: Rows, random: np.random.RandomState
) -> tuple[npt.NDArray[np.bool_], float]:
    """Return which groups one side of a split takes, (G,), and how far off it is.

    Groups change sides one by one, in random order, while that is better.

    Args:
        counts: (G, C), the number of rows of each group and class.
        share: of the rows of each class that the side should have.
        least: (C,), the number of groups of a class that it has at least.
        most: (C,), the number of groups of a class that it has at most.
        random: of the order.
    """
    total, present = counts.sum(0), counts > 0

    def badness_of(rows: Counts, number: Rows) -> float:
        outside = np.maximum(least - number, 0) + np.maximum(number - most, 0)
        off = (rows / total - share) ** 2
        return float(off.mean() + (rows.sum() / total.sum() - share) ** 2 + 10 * outside.sum())

    taken, rows, number = np.zeros(len(counts), dtype=bool), np.zeros_like(total), np.zeros_like(least)
    badness, order, changed = badness_of(rows, number), random.permutation(len(counts)), True
    while changed:
        changed = False
        for one in order:
            sign = -1 if taken[one] else 1
            after = rows + sign * counts[one], number + sign * present[one]
            if (then := badness_of(*after)) < badness - 1e-12:
                (rows, number), badness, changed = after, then, True
                taken[one] = not taken[one]
    return taken, badness
