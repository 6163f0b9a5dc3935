from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.errors import DimsError, FusionError
from tests.allocations import largest

DIMS = [5, 1, 13]


def operator(n: int = 6, dims: list[int] | None = None, r: Any = None, **options: Any) -> Any:
    fabrication = {"name": "view_lowrank", "r": r}
    return fusionkit.create(
        "parameterized_concatenation", n=n, dims=dims or DIMS, parameter_fabrication=fabrication, **options
    )


@pytest.mark.parametrize(("r", "ranks"), [(None, [5, 1, 6]), (1, [1, 1, 1]), ([2, 1, 3], [2, 1, 3])])
def test_against_loops(r: Any, ranks: list[int]) -> None:
    op = operator(r=r, dtype="float64")
    w = torch.randn(op.calculate_l(), dtype=torch.float64)
    numbers, start, expected = w.tolist(), 0, torch.zeros(6, sum(DIMS), dtype=torch.float64)
    column = 0
    for rank, width in zip(ranks, DIMS, strict=True):
        for i in range(6):
            for j in range(width):
                for c in range(rank):
                    a, b = numbers[start + i * rank + c], numbers[start + 6 * rank + c * width + j]
                    expected[i, column + j] += a * b
        start += rank * (6 + width)
        column += width
    assert len(w) == start
    torch.testing.assert_close(op.fabrication.materialize(w, 6, sum(DIMS)), expected)
    x = [torch.randn(4, width, dtype=torch.float64) for width in DIMS]
    torch.testing.assert_close(op(x, w=w), torch.cat(x, -1) @ expected.T)


def test_every_factor_is_a_parameter() -> None:
    """Seen elsewhere: factors in a Python list, 3 of 47 registered."""
    k = 23
    op = operator(n=6, dims=[5] * k, r=2)
    names = [f"{letter}_{i}" for i in range(1, k + 1) for letter in "AB"]
    assert [name for name, _ in op.named_parameters()] == names
    assert {name: tuple(p.shape) for name, p in op.named_parameters()} == {
        name: (6, 2) if name[0] == "A" else (2, 5) for name in names
    }
    assert op.calculate_l() == sum(p.numel() for p in op.parameters()) == k * 2 * (6 + 5)


def test_every_view_matters() -> None:
    """Seen elsewhere: a third view is ignored."""
    op, x = operator(), [torch.randn(2, width, requires_grad=True) for width in DIMS]
    op(x).square().sum().backward()
    assert all(view.grad is not None and view.grad.abs().min() > 0 for view in x)
    assert all(p.grad is not None and p.grad.abs().min() > 0 for p in op.parameters())


def test_every_view_starts_with_the_same_mean_square() -> None:
    op = operator(n=60, dims=[50, 3, 90], r=[7, 1, 2])
    W = op.fabrication.materialize(op.flat_w(), 60, 143)
    for columns in W.split([50, 3, 90], 1):
        assert columns.square().mean().item() == pytest.approx(1 / 143, rel=1e-4)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_gradients_equal_those_through_W(dtype: str) -> None:
    op = operator(dtype=dtype)
    x = [torch.randn(3, 4, width, dtype=op.A_1.dtype, requires_grad=True) for width in DIMS]
    inputs = [*x, *op.parameters()]
    actual = op(x)
    expected = torch.cat(x, -1) @ op.fabrication.materialize(op.flat_w(), 6, sum(DIMS)).T
    out = torch.randn_like(expected)
    tolerance: Any = {} if dtype == "float64" else {"rtol": 0.05, "atol": 0.1}
    for found, right in zip(
        torch.autograd.grad(actual, inputs, out), torch.autograd.grad(expected, inputs, out), strict=True
    ):
        torch.testing.assert_close(found, right, **tolerance)


def test_derivatives() -> None:
    op = operator(dtype="float64")
    w = torch.randn(op.calculate_l(), dtype=torch.float64, requires_grad=True)
    x = [torch.randn(2, width, dtype=torch.float64, requires_grad=True) for width in DIMS]
    function: Callable[..., Tensor] = lambda w, *x: op(x, w=w)  # noqa: E731
    assert torch.autograd.gradcheck(function, (w, *x), check_forward_ad=True, check_batched_grad=True)
    many = torch.randn(3, len(w), dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(lambda w: op(x, w=w))(many), torch.stack([op(x, w=w) for w in many]))


def test_without_views_there_is_one() -> None:
    made = fusionkit.create_fabrication("view_lowrank")
    assert made.shapes(6, 19) == {"A_1": (6, 6), "B_1": (6, 19)}
    made.prepare(6, DIMS)
    assert list(made.shapes(6, 19)) == ["A_1", "B_1", "A_2", "B_2", "A_3", "B_3"]
    assert made.shapes(6, 20) == {"A_1": (6, 6), "B_1": (6, 20)}


def test_an_operator_is_not_bound_to_the_views_of_another() -> None:
    first = operator()
    second = fusionkit.create("parameterized_concatenation", n=4, dims=[9, 10], parameter_fabrication=first.fabrication)
    assert [tuple(p.shape) for p in second.parameters()] == [(4, 4), (4, 9), (4, 4), (4, 10)]
    assert first.fabrication.shapes(6, 19)["B_3"] == (6, 13)


def test_no_concatenation_and_no_W() -> None:
    n, dims = 1024, [1024] * 4
    op = operator(n=n, dims=dims)
    x = [torch.randn(512, width, requires_grad=True) for width in dims]
    assert largest(lambda: op(x).sum().backward()) <= 512 * 1024 * x[0].element_size()


@pytest.mark.parametrize(
    ("r", "error", "message"),
    [
        (
            2,
            FusionError,
            r"^r, the rank of view_lowrank, should be from 1 to min\(n, n_i\) = 1 for view 1, "
            r"with n = 6 and n_i = 1; found 2\.$",
        ),
        ([1, 1], DimsError, r"^r should hold one rank per view, 3; found 2\.$"),
        ([1, 0, 1], DimsError, r"^r\[1\], the rank of view 1, should be an integer of at least 1; found 0\.$"),
        (0, DimsError, r"^r, the rank of view_lowrank, should be an integer of at least 1; found 0\.$"),
        (1.5, DimsError, r"^r, the rank of view_lowrank, should be an integer of at least 1; found 1\.5\.$"),
        ("2", DimsError, r"should be an integer of at least 1; found '2'\.$"),
    ],
)
def test_bad_ranks(r: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        operator(r=r)
