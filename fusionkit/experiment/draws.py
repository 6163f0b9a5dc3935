"""Draws rows by a seed: stratified by class where there are classes, and whole groups where there are groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]


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

    Groups are taken in random order into the smaller side as long as this brings the share of each class, and of all
    rows, nearer to its size; then single groups change sides until no change does.  scikit-learn's StratifiedGroupKFold
    has sizes 1/2, 1/3, ... alone, and may leave a class out of a side.

    Args:
        strata: (rows,), the class of each row; each is in two groups or more.  None: all rows are of one class.
        groups: (rows,), indices of the groups; there are two or more.
        size: the share of the rows that are held out, above 0 and below 1.
        seed: of the draw.
    """
    counts = _table(np.zeros_like(groups) if strata is None else strata, groups)
    found = (counts > 0).sum(0)
    # Two groups of a class stay where it has three, so that a validation part can be drawn from those that stay.
    low, high = np.ones_like(found), np.maximum(found - 2, 1)
    if size > 0.5:
        low, high = found - high, found - low
    taken = _take(counts, min(size, 1 - size), low, high, np.random.RandomState(seed))
    held = (taken if size <= 0.5 else ~taken)[groups]
    return np.flatnonzero(~held), np.flatnonzero(held)


def _table(strata: Rows, groups: Rows) -> Counts:
    """Return the number of rows of each group (G) and class (C): (G, C)."""
    shape = groups.max() + 1, strata.max() + 1
    cells = np.bincount(groups * shape[1] + strata, minlength=shape[0] * shape[1])
    return cells.reshape(shape).astype(np.float64)


def _take(counts: Counts, share: float, low: Rows, high: Rows, random: np.random.RandomState) -> npt.NDArray[np.bool_]:
    """Return which groups are taken, (G,): of ``share`` of each class, and ``low`` to ``high`` of its groups (C,)."""
    total, rows, present = counts.sum(0), counts.sum(), counts > 0

    def badness(sums: Counts, number: Rows) -> float:
        """Of the rows and of the groups of each class that are taken, both (C,)."""
        outside = np.maximum(low - number, 0) + np.maximum(number - high, 0)
        off = ((sums / total - share) ** 2).mean() + (sums.sum() / rows - share) ** 2
        return float(off + 10 * outside.sum())

    taken = np.zeros(len(counts), dtype=bool)
    sums, number = np.zeros_like(total), np.zeros_like(low)
    order = random.permutation(len(counts))
    small = (counts <= np.maximum(1.5 * share * total, 1)).all(1)
    worth, changed, candidates = badness(sums, number), True, order[small[order]]
    while changed:
        changed = len(candidates) < len(order)
        for one in candidates:
            sign = -1 if taken[one] else 1
            after = sums + sign * counts[one], number + sign * present[one]
            if (then := badness(*after)) < worth - 1e-12:
                taken[one], worth, changed = not taken[one], then, True
                sums, number = after
        candidates = order
    return taken
