"""The choice between a fabrication's own product and building W."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fusionkit.core import fabrication
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.kernels.planning import (
    BUILD,
    BYTES,
    CACHED,
    COPY,
    LAUNCH,
    LEAST_BLOCK,
    MACS,
    MANY_ROWS,
    THIN,
    BreakEven,
    Effort,
    Launched,
)
from tests.gpu_double import OnAGPU


def test_the_cheaper_way_is_taken() -> None:
    n, D = 16, 32
    effort = Effort(macs=100.0, copies=2.0, setup=5.0)
    even = BreakEven.of(effort, n, D)
    for rows in (0, 1, 10, 100, 1000, 100_000):
        own = rows * (THIN * effort.macs + COPY * effort.copies) + COPY * effort.setup
        built = rows * n * D + COPY * BUILD * n * D
        assert even.holds_for(rows) == (own <= built), rows


def test_a_costly_product_is_left_at_large_batches_only() -> None:
    even = BreakEven.of(Effort(macs=10_000.0), 16, 32)
    assert even.holds_for(1)
    assert not even.holds_for(100_000)


def test_a_large_W_is_never_built_for_many_rows() -> None:
    costly = BreakEven.of(Effort(macs=1e9), 1024, 1024)
    assert costly.skips_materialization(torch.empty(2000, 1024, device="meta"))
    assert not costly.skips_materialization(torch.empty(1000, 1024, device="meta"))


@pytest.mark.parametrize("way", [True, False], ids=["own product", "W built"])
def test_both_ways_agree(way: bool) -> None:
    op = ParameterizedConcatenation(16, [8, 24], parameter_fabrication="monarch", dtype="float64")
    x = [torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 24, dtype=torch.float64)]
    W = op.fabrication.materialize(op.flat_w(), 16, 32)
    forced = copy.deepcopy(op)
    forced.fabrication._break_even = BreakEven(-1.0 if way else 1.0, 0.0)
    assert forced.fabrication._break_even.skips_materialization(x[0]) == way
    torch.testing.assert_close(forced(x), torch.cat(x, -1) @ W.T)


def rows_taken(made: fabrication.Fabrication, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every call of the own product appends its number of rows."""
    seen: list[int] = []
    project = type(made)._project

    def watched(self: fabrication.Fabrication, x: Sequence[Tensor], *rest: Any) -> Tensor:
        seen.append(len(x[0]))
        return project(self, x, *rest)

    monkeypatch.setattr(type(made), "_project", watched)
    return seen


@pytest.mark.parametrize("taken", [[768], [385, 384], [513, 513, 513, 511]], ids=str)
@pytest.mark.parametrize("name", ["monarch", "kronecker", "toeplitz"])
def test_many_rows_are_taken_in_blocks(name: str, taken: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert LEAST_BLOCK == 512
    rows = sum(taken)
    op = ParameterizedConcatenation(6, [4, 5], parameter_fabrication=name, dtype="float64")
    op.fabrication._break_even = BreakEven(-1.0, 0.0)
    x = [torch.randn(rows, width, dtype=torch.float64, requires_grad=True) for width in (4, 5)]
    seen = rows_taken(op.fabrication, monkeypatch)
    out = op(x)
    assert seen == taken
    expected = torch.cat(x, -1) @ op.fabrication.materialize(op.flat_w(), 6, 9).T
    torch.testing.assert_close(out, expected)
    inputs, grad = [*x, *op.parameters()], torch.randn_like(expected)
    for found, right in zip(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(found, right)
    torch.testing.assert_close(op([view.view(1, rows, -1) for view in x])[0], out)


def test_an_accelerator_takes_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for them."""
    op = ParameterizedConcatenation(6, [4, 5], parameter_fabrication="monarch", device="meta")
    op.fabrication._break_even = BreakEven(-1.0, 0.0)
    seen = rows_taken(op.fabrication, monkeypatch)
    assert op([torch.empty(5000, width, device="meta") for width in (4, 5)]).shape == (5000, 6)
    assert seen == [5000]


def test_blocks_hold_what_the_cache_holds() -> None:
    assert BreakEven.of(Effort(1.0, copies=1000.0), 4, 4).block == CACHED // 1000
    assert BreakEven.of(Effort(1.0, copies=1e9), 4, 4).block == LEAST_BLOCK


def test_in_slabs_a_large_W_may_be_built_for_many_rows() -> None:
    assert BreakEven.of(Effort(macs=1e9), 1024, 1024).holds_for(5000)
    assert not BreakEven.of(Effort(macs=1e9, slabs=True), 1024, 1024).holds_for(5000)


def test_while_compiling_the_batch_does_not_matter() -> None:
    even = BreakEven.of(Effort(macs=10_000.0), 16, 32)
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(even.skips_materialization(x))
        return x

    for rows in (1, 100_000):
        torch.vmap(look)(torch.empty(2, rows, 64))
    assert seen == [even.holds_for(MANY_ROWS)] * 2


def test_break_evens_survive_copies() -> None:
    even = BreakEven.of(Effort(1.0), 4, 4)
    assert copy.deepcopy(even) == even == pickle.loads(pickle.dumps(even))


def chosen(name: str, n: int, dims: list[int], rows: int, **options: Any) -> bool:
    spec = {"name": name, **options}
    op = ParameterizedConcatenation(n, dims, parameter_fabrication=spec, device="meta")
    return op.fabrication._quicker_on_gpu(n, tuple(dims), rows, torch.float32)


@pytest.mark.parametrize(
    ("name", "rows", "own"),
    [
        ("kronecker", 16, False),  # Four operations more than W takes.
        ("kronecker", 4096, True),
        ("monarch", 16, True),  # W takes four times as many operations.
        ("block_circulant", 256, False),  # Fifty operations.
        ("block_diagonal", 16, True),
        ("lowrank_kronecker", 16, False),
        ("lowrank_kronecker", 4096, True),
    ],
)
def test_on_a_gpu_launches_count(name: str, rows: int, own: bool) -> None:
    """As measured on an H100."""
    assert chosen(name, 512, [512] * 4, rows) == own


def test_a_gpu_may_have_a_large_W_in_slabs() -> None:
    assert not chosen("toeplitz", 1024, [1024] * 4, 1)
    assert chosen("toeplitz", 1024, [1024] * 4, 10**6)


def test_a_way_is_counted_once_for_rows_of_a_magnitude(monkeypatch: pytest.MonkeyPatch) -> None:
    op = ParameterizedConcatenation(6, [4, 5], parameter_fabrication={"name": "hypernet", "l": 3})
    first = {name: buffer.clone() for name, buffer in op.fabrication.named_buffers()}
    assert first
    counted: list[None] = []
    by = Launched.by

    def watched(function: Any) -> Launched:
        counted.append(None)
        return by(function)

    monkeypatch.setattr(Launched, "by", watched)
    ways = [op.fabrication._quicker_on_gpu(6, (4, 5), rows, torch.float32) for rows in (0, 4, 5, 7, 8)]
    assert len(counted) == 2 * 3
    assert ways[1] == ways[2] == ways[3]
    assert all(torch.equal(op.fabrication.get_buffer(name), buffer) for name, buffer in first.items())


def test_the_way_on_a_gpu_is_asked_for_there_only(monkeypatch: pytest.MonkeyPatch) -> None:
    op = ParameterizedConcatenation(6, [4, 5], parameter_fabrication="monarch")
    made = op.fabrication
    assert made._break_even is not None
    asked: list[int] = []

    def quicker(n: int, dims: tuple[int, ...], rows: int, dtype: torch.dtype) -> bool:
        assert (n, dims, dtype) == (6, (4, 5), torch.float32)
        asked.append(rows)
        return rows > 3

    monkeypatch.setattr(made, "_quicker_on_gpu", quicker)
    monkeypatch.setattr(fabrication, "in_place_ok", lambda tensors: True)

    def there(*lead: int) -> list[Tensor]:
        return [torch.randn(*lead, width).as_subclass(OnAGPU) for width in (4, 5)]

    assert made.skips_materialization(there(2, 3))
    assert not made.skips_materialization(there(2, 1))
    assert asked == [6, 2]
    made.skips_materialization([torch.randn(2, 3, width) for width in (4, 5)])
    made.skips_materialization([torch.empty(2, 3, width, device="meta") for width in (4, 5)])
    monkeypatch.setattr(fabrication, "in_place_ok", lambda tensors: False)
    made.skips_materialization(there(2, 3))
    assert asked == [6, 2]
    monkeypatch.setattr(fabrication, "in_place_ok", lambda tensors: True)
    made._break_even = BreakEven(1.0, 0.0, large=True)
    assert made.skips_materialization(there(2000))
    assert asked == [6, 2, 2000]
    made._break_even = BreakEven(1.0, 0.0, large=True, huge=True)
    assert made.skips_materialization(there(2))
    assert asked == [6, 2, 2000]


def test_a_huge_W_is_built_nowhere() -> None:
    assert BreakEven.of(Effort(1.0), 2**13, 2**13).huge
    assert not BreakEven.of(Effort(1.0), 2**13, 2**13 - 1).huge
    assert not BreakEven.of(Effort(1.0, slabs=True), 2**13, 2**13).huge


def test_what_is_launched() -> None:
    def work() -> None:
        a, b = torch.empty(3, 5), torch.empty(7, 5)
        (a @ b.T).view(-1).relu_()

    assert Launched.by(work) == Launched(2, 3 * 7 * 5, 4 * (15 + 35 + 21) + 4 * (21 + 21))

    assert Launched(5, 0, 0).seconds(4) == 5 * LAUNCH
    assert Launched(5, 10**12, 10**12).seconds(4) == pytest.approx(10**12 / MACS[4] + 10**12 / BYTES)
