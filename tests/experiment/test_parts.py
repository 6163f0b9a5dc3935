"""Rows in random order, and the sizes of batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionkit.experiment.parts import Part, batch_sizes


@pytest.mark.parametrize(
    ("rows", "batch_size", "sizes"),
    [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 1, [1, 1, 1]), (1, 4, [1]), (3, 4, [3]), (5, 4, [5])],
)
def test_no_batch_but_the_only_one_has_a_single_row(rows: int, batch_size: int, sizes: list[int]) -> None:
    assert batch_sizes(rows, batch_size) == sizes


@pytest.mark.parametrize(
    ("rows", "processes", "sizes"),
    [(9, 2, [4, 5]), (10, 2, [4, 6]), (11, 2, [4, 7]), (12, 2, [4, 4, 4]), (23, 4, [8, 15]), (3, 2, [3])],
)
def test_no_process_has_a_single_row_of_the_last_batch(rows: int, processes: int, sizes: list[int]) -> None:
    assert batch_sizes(rows, sizes[0], processes) == sizes


def test_every_row_comes_once_with_its_target_mask_and_weight() -> None:
    target = torch.arange(11)
    mask = target[:, None] % torch.tensor([2, 3]) == 0
    part = Part([target[:, None].float(), -target[:, None].float()], target, mask, target.double())
    batches = [batch.part for batch in part.batches([4, 4, 3], torch.Generator().manual_seed(0))]
    assert [len(batch) for batch in batches] == [4, 4, 3]
    order = torch.cat([batch.target for batch in batches])
    assert sorted(order.tolist()) == target.tolist() != order.tolist()
    for batch in batches:
        assert torch.equal(batch.views[0][:, 0].long(), batch.target)
        assert torch.equal(batch.views[1], -batch.views[0])
        assert batch.mask is not None
        assert torch.equal(batch.mask, mask[batch.target])
        assert batch.weight is not None
        assert torch.equal(batch.weight, batch.target.double())


def test_sliced_takes_the_rows_of_a_slice() -> None:
    part = Part([torch.arange(7.0)[:, None]], torch.arange(7)).sliced(slice(1, None, 3))
    assert part.target.tolist() == [1, 4] == part.views[0][:, 0].tolist()


def test_parts_are_joined_in_order() -> None:
    def part(target: Tensor) -> Part:
        return Part([target[:, None].float()], target, target[:, None] > 2, target.double())

    joined = part(torch.arange(3)).joined([part(torch.arange(3, 5)), part(torch.arange(5, 6))])
    assert joined.target.tolist() == joined.views[0][:, 0].tolist() == list(range(6))
    assert joined.mask is not None
    assert joined.mask[:, 0].tolist() == [False] * 3 + [True] * 3
    assert joined.weight is not None
    assert joined.weight.tolist() == list(range(6))
    plain = Part([torch.ones(2, 1)], torch.zeros(2))
    assert plain.joined([plain]).mask is plain.joined([plain]).weight is None
