from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from fusionkit.experiment.draws import draw_groups, draw_rows, draw_some

Rows = np.ndarray[Any, Any]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stratified", [True, False], ids=["stratified", "plain"])
def test_rows_are_those_that_scikit_learn_draws(seed: int, stratified: bool) -> None:
    random = np.random.default_rng(seed)
    target = random.permutation(np.concatenate([np.arange(5).repeat(3), random.integers(0, 5, 40 * seed)]))
    size = 0.35 + 0.05 * seed
    strata = target if stratified else None
    wanted = train_test_split(np.arange(len(target)), test_size=size, stratify=strata, random_state=seed)
    found = draw_rows(strata, len(target), int(np.ceil(size * len(target))), seed)
    for part, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_a_draw_leaves_the_global_random_state() -> None:
    state = np.random.get_state()[1]  # type: ignore[index]
    draw_rows(np.arange(40) % 2, 40, 8, seed=0)
    draw_groups(np.arange(40) % 2, np.arange(40) // 2, 0.2, seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # type: ignore[index]


# -- groups ------------------------------------------------------------------------------------------------------------


def of_sizes(*sizes: int) -> Rows:
    """Return the group of each row, for groups of these sizes."""
    return np.repeat(np.arange(len(sizes)), sizes)


def drawn(strata: Rows | None, groups: Rows, size: float, seed: int = 0) -> Rows:
    """Draw, assert that every row is on one side and no group on two, and return the rows that are held out."""
    stay, held = draw_groups(strata, groups, size, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([stay, held])), np.arange(len(groups)))
    assert not set(groups[stay]) & set(groups[held])
    return held


def shares(strata: Rows, held: Rows) -> Rows:
    """Return the part of each class that is held out."""
    found: Rows = np.bincount(strata[held], minlength=strata.max() + 1) / np.bincount(strata)
    return found


@pytest.mark.parametrize("size", [0.1, 0.2, 0.25, 0.3, 0.45, 0.5, 0.7, 0.9])
def test_patients_of_one_class_each_keep_the_share_of_every_class(size: int) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        sizes = random.integers(1, 9, 101)
        groups = random.permutation(of_sizes(*sizes))
        strata = groups % 3
        # Single groups of at most 8 rows among about 150 of the class cannot bring it nearer.
        assert np.abs(shares(strata, drawn(strata, groups, size, seed)) - size).max() < 0.06


@pytest.mark.parametrize("size", [0.1, 0.2, 0.3, 0.45, 0.7])
def test_sites_with_rows_of_all_classes_keep_the_share_of_every_class(size: float) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        strata, groups = random.choice(4, 3000, p=[0.5, 0.3, 0.15, 0.05]), random.integers(0, 40, 3000)
        held = drawn(strata, groups, size, seed)
        assert np.abs(shares(strata, held) - size).max() < 0.06
        assert abs(len(held) / 3000 - size) < 0.03


@pytest.mark.parametrize("groups", [2, 3, 5, 7])
def test_every_class_is_on_both_sides(groups: int) -> None:
    for seed in range(50):
        random = np.random.default_rng(seed)
        group = of_sizes(*random.integers(1, 30, 4 * groups))
        strata, size = group // groups, random.uniform(0.02, 0.98)
        held = drawn(strata, group, size, seed)
        counts = [len(np.unique(group[held][strata[held] == one])) for one in range(4)]
        assert min(counts) >= 1
        # A validation part can be drawn from what stays, if the class has three groups.
        assert max(counts) <= max(groups - 2, 1)


def test_shares_without_classes() -> None:
    for seed in range(20):
        groups = of_sizes(*np.random.default_rng(seed).integers(1, 20, 60))
        assert abs(len(drawn(None, groups, 0.3, seed)) / len(groups) - 0.3) < 0.02


@pytest.mark.parametrize("size", [0.1, 0.2, 0.3, 0.45])
def test_a_giant_group_is_not_held_out(size: float) -> None:
    groups = of_sizes(600, *[10] * 40)
    for seed in range(20):
        held = drawn(None, groups, size, seed)
        assert 0 not in groups[held]
        assert len(held) == round(min(size, 0.39) * 1000)


def test_a_giant_group_is_held_out_where_the_size_is_its_own() -> None:
    groups = of_sizes(600, *[10] * 40)
    assert groups[drawn(None, groups, 0.6)].tolist() == [0] * 600


def test_two_groups_are_one_on_each_side() -> None:
    held = [drawn(None, of_sizes(3, 4), 0.45, seed) for seed in range(10)]
    assert {tuple(rows) for rows in held} <= {(0, 1, 2), (3, 4, 5, 6)}
    assert drawn(None, np.array([1, 0]), 0.01).tolist() in ([0], [1])


def test_the_seed_decides() -> None:
    groups = of_sizes(18, 20, 21, 19, 22)
    found = {tuple(np.unique(groups[drawn(None, groups, 0.2, seed)])) for seed in range(40)}
    assert found == {(0,), (1,), (2,), (3,), (4,)}
    np.testing.assert_array_equal(drawn(None, groups, 0.2, 7), drawn(None, groups, 0.2, 7))


def test_the_names_of_the_classes_do_not_matter() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 30, 400)
    np.testing.assert_array_equal(drawn(groups % 2, groups, 0.3, 5), drawn(1 - groups % 2, groups, 0.3, 5))


def test_at_most_some_rows() -> None:
    rows = np.arange(100, 0, -1)
    assert draw_some(rows, 100, 0) is rows
    chosen = draw_some(rows, 60, 1)
    assert len(chosen) == 60
    assert (np.diff(chosen) < 0).all()
    assert set(chosen) < set(rows)
    assert (draw_some(rows, 60, 1) == chosen).all()
    assert (draw_some(rows, 60, 2) != chosen).any()
