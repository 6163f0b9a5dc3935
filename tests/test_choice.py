"""The choice between a fabrication's own product and building W."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from fusionkit.choice import BUILD, COPY, NOMINAL_ROWS, THIN, Effort, Plan
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


def test_the_cheaper_way_is_taken() -> None:
    n, D = 16, 32
    effort = Effort(macs=100.0, copies=2.0, setup=5.0)
    plan = Plan.of(effort, n, D)
    for rows in (0, 1, 10, 100, 1000, 100_000):
        own = rows * (THIN * effort.macs + COPY * effort.copies) + COPY * effort.setup
        built = rows * n * D + COPY * BUILD * n * D
        assert plan.decide(rows) == (own <= built), rows


def test_a_costly_product_is_left_at_large_batches_only() -> None:
    plan = Plan.of(Effort(macs=10_000.0), 16, 32)
    assert plan.decide(1)
    assert not plan.decide(100_000)


def test_a_large_W_is_never_built_for_many_rows() -> None:
    costly = Plan.of(Effort(macs=1e9), 1024, 1024)
    assert costly.own_product(torch.empty(2000, 1024, device="meta"))
    assert not costly.own_product(torch.empty(1000, 1024, device="meta"))


@pytest.mark.parametrize("way", [True, False], ids=["own product", "W built"])
def test_both_ways_agree(way: bool) -> None:
    op = ParameterizedConcatenation(16, [8, 24], parameter_fabrication="monarch", dtype="float64")
    x = [torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 24, dtype=torch.float64)]
    W = op.fabrication.materialize(op.flat_w(), 16, 32)
    forced = copy.deepcopy(op)
    forced.fabrication._plan = Plan(-1.0 if way else 1.0, 0.0, large=False)
    assert forced.fabrication._plan.own_product(x[0]) == way
    torch.testing.assert_close(forced(x), torch.cat(x, -1) @ W.T)


def test_while_compiling_the_batch_does_not_matter() -> None:
    plan = Plan.of(Effort(macs=10_000.0), 16, 32)
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(plan.own_product(x))
        return x

    for rows in (1, 100_000):
        torch.vmap(look)(torch.empty(2, rows, 64))
    assert seen == [plan.decide(NOMINAL_ROWS)] * 2


def test_plans_survive_copies() -> None:
    plan = Plan.of(Effort(1.0), 4, 4)
    assert copy.deepcopy(plan) == plan == pickle.loads(pickle.dumps(plan))
