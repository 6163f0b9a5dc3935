from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fusionkit.errors import FusionError
from fusionkit.experiment import ViewDropout
from tests.messages import like

ROWS = 20_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def present(*columns: float) -> torch.Tensor:
    """Return a mask (ROWS, k) whose columns are present with these probabilities."""
    return torch.rand(ROWS, len(columns), generator=generator(1)) < torch.tensor(columns)


def test_the_part_that_is_dropped() -> None:
    mask = torch.ones(ROWS, 3, dtype=torch.bool)
    found = ViewDropout(0.3, keep_one=False)(mask, generator())
    torch.testing.assert_close(found.double().mean(0), torch.full((3,), 0.7).double(), atol=0.015, rtol=0)
    found = ViewDropout([0.0, 1.0, 0.5], keep_one=False)(mask, generator())
    assert found[:, 0].all()
    assert not found[:, 1].any()
    assert float(found[:, 2].double().mean()) == pytest.approx(0.5, abs=0.015)


def test_rows_and_views_are_independent() -> None:
    found = ViewDropout(0.5, keep_one=False)(torch.ones(ROWS, 2, dtype=torch.bool), generator())
    assert float((found[:, 0] & found[:, 1]).double().mean()) == pytest.approx(0.25, abs=0.015)
    assert float((found[1:, 0] & found[:-1, 0]).double().mean()) == pytest.approx(0.25, abs=0.015)


def test_one_that_is_present_stays_and_all_as_often() -> None:
    mask = present(0.9, 0.9, 0.9, 0.1)
    found = ViewDropout(1.0)(mask, generator())
    assert torch.equal(found.sum(-1), mask.any(-1).long())
    three = found[(mask == torch.tensor([True, True, True, False])).all(-1)].double().mean(0)
    torch.testing.assert_close(three, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]).double(), atol=0.015, rtol=0)


def test_absent_views_stay_absent_and_the_mask_is_not_changed() -> None:
    mask = present(0.5, 0.5)
    before = mask.clone()
    for keep_one in (True, False):
        found = ViewDropout(0.5, keep_one)(mask, generator())
        assert not (found & ~mask).any()
        assert found.any()
    assert torch.equal(mask, before)


def test_a_row_in_which_some_are_left_is_as_it_was_drawn() -> None:
    mask = present(0.8, 0.8, 0.8)
    kept, drawn = (ViewDropout(0.5, keep_one)(mask, generator()) for keep_one in (True, False))
    some = drawn.any(-1)
    assert torch.equal(kept[some], drawn[some])
    assert not torch.equal(kept, drawn)


@pytest.mark.parametrize("p", [0, 0.0, [0.0, 0.0]])
def test_nothing_is_drawn_where_nothing_is_dropped(p: Any) -> None:
    mask, random = present(0.5, 0.5), generator()
    assert torch.equal(ViewDropout(p)(mask, random), mask)
    assert torch.equal(ViewDropout(0.5).eval()(mask, random), mask)
    assert torch.equal(random.get_state(), generator().get_state())


def test_the_generator_decides() -> None:
    mask, drop = present(0.9, 0.9), ViewDropout(np.float64(0.5))
    assert torch.equal(drop(mask, generator(3)), drop(mask, generator(3)))
    assert not torch.equal(drop(mask, generator(3)), drop(mask, generator(4)))
    torch.manual_seed(5)
    first = drop(mask)
    torch.manual_seed(5)
    assert torch.equal(drop(mask), first)


def test_leading_dimensions_and_empty_batches() -> None:
    drop = ViewDropout(0.9)
    for shape in ((3,), (2, 5, 3), (0, 3)):
        found = drop(torch.ones(shape, dtype=torch.bool), generator())
        assert found.shape == shape
        assert found.any(-1).all()
    assert repr(drop) == "ViewDropout(p=0.9, keep_one=True)"


@pytest.mark.parametrize(
    ("p", "found"), [(1.5, "1.5"), (-0.1, "-0.1"), ("a", "'a'"), ([0.1, 2], "[0.1, 2]"), (True, "True"), (None, "None")]
)
def test_p_is_a_probability(p: Any, found: str) -> None:
    with pytest.raises(FusionError, match=like(f"p … found {found}.")):
        ViewDropout(p)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.ones(2, 3), "mask … found torch.float32 (2, 3)."),
        (torch.tensor(True), "mask … found torch.bool ()."),
        (np.ones((2, 3), dtype=bool), "mask … found ndarray."),
        (torch.ones(2, 3, dtype=torch.bool), "mask … 2 views, one per p; found 3."),
    ],
)
def test_the_mask_has_a_column_per_view(mask: Any, sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        ViewDropout([0.5, 0.5])(mask)
