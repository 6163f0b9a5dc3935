from __future__ import annotations

import math

import pytest
import torch

import fusionkit
from fusionkit.fusions.l2_norm import _wide_norm
from tests.fusions import elementwise_properties as properties


def test_values() -> None:
    properties.values("l2_norm", lambda v: math.sqrt(sum(a * a for a in v)))


def test_derivatives() -> None:
    properties.derivatives("l2_norm")


def test_blocks() -> None:
    properties.large("l2_norm")


def test_nan_stays_where_it_is() -> None:
    properties.nan("l2_norm")


def test_compiles_whole() -> None:
    properties.compiles("l2_norm")


def test_the_derivative_at_zero_is_zero() -> None:
    x = [torch.zeros(1, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    grads = torch.autograd.grad(fusionkit.create("l2_norm", dims=[2] * 3)(x).sum(), x, create_graph=True)
    assert [grad.tolist() for grad in grads] == [[[0.0, 0.0]]] * 3


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 2e4), (torch.float16, 1e-6), (torch.float32, 1e30)])
def test_any_magnitude(dtype: torch.dtype, size: float) -> None:
    x = [torch.full((1, 1), size, dtype=dtype) for _ in range(4)]
    found = fusionkit.create("l2_norm", dims=[1] * 4)(x)
    torch.testing.assert_close(found, 2 * x[0], rtol=2e-3, atol=0)


def test_float64_holds_the_squares_of_float32() -> None:
    """What a GPU does."""
    x = [
        torch.tensor([3.0, 3e38, 3e-39, 0.0, math.inf, math.nan]),
        torch.tensor([4.0, 1e38, 4e-39, 0.0, 1.0, math.inf]),
    ]
    before = [view.clone() for view in x]
    found, right = _wide_norm(x), torch.stack([view.double() for view in x]).square().sum(0).sqrt().float()
    torch.testing.assert_close(found, right, rtol=0, atol=0, equal_nan=True)
    assert found.dtype == torch.float32
    for view, old in zip(x, before, strict=True):
        torch.testing.assert_close(view, old, rtol=0, atol=0, equal_nan=True)
