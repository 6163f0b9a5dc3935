"""The choice between a fabrication's own product and building W."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from fusionkit.choice import MACHINES, NOMINAL_ROWS, Plan, plan, plan_of, price
from fusionkit.fabrications.monarch import Monarch
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.work import Operation


def test_price_is_that_of_the_slower_resource() -> None:
    machine = MACHINES["cpu"]
    product = Operation("aten.mm", 6 * 10**9, 0, 8)
    copying = Operation("aten.clone", 0, 10, 10**9)
    view = Operation("aten.view", 0, 0, 0)
    assert price([product], machine) == pytest.approx(machine.call + 6e9 / machine.rate)
    assert price([copying, view], machine) == pytest.approx(machine.call + 1e9 / machine.bandwidth + machine.view)


def test_a_large_W_is_never_built_for_many_rows() -> None:
    large = plan_of(Monarch, "{}", 1024, (1024,))
    assert large.structured(torch.empty(2000, 1024, device="meta"))


def test_both_ways_agree() -> None:
    op = ParameterizedConcatenation(16, [8, 24], parameter_fabrication="monarch", dtype="float64")
    x = [torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 24, dtype=torch.float64)]
    W = op.fabrication.materialize(op.flat_w(), 16, 32)
    for structured in (True, False):
        forced = copy.deepcopy(op)
        choice = Plan(Monarch, "{}", 16, (8, 24))
        for rows in range(1, 12):
            choice._decisions[rows] = dict.fromkeys(MACHINES, structured)
        forced.fabrication._plan = choice
        torch.testing.assert_close(forced(x), torch.cat(x, -1) @ W.T)


def test_while_compiling_the_batch_does_not_matter() -> None:
    choice = plan_of(Monarch, "{}", 64, (64,))
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(choice.structured(x))
        return x

    for rows in (1, 100_000):
        torch.vmap(look)(torch.empty(2, rows, 64))
    assert seen[0] == seen[1] == choice._decide(NOMINAL_ROWS)["cpu"]


def test_plans_are_shared_and_survive_copies() -> None:
    found = plan(Monarch, {"nb": 2}, 8, (8,))
    assert found is plan(Monarch, {"nb": 2}, 8, (8,))
    assert copy.deepcopy(found) is found
    assert pickle.loads(pickle.dumps(found)) is found
    assert plan(Monarch, {"nb": object()}, 8, (8,)) is None
