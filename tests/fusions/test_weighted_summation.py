from __future__ import annotations

from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.errors import DimsError, FusionError
from tests.fusions import elementwise_properties as properties

WEIGHTS = [0.5, -1.0, 2.0]


def test_values_and_derivatives() -> None:
    properties.values("weighted_summation", sum)
    op = fusionkit.create("weighted_summation", dims=[3] * 3, weights=WEIGHTS, dtype="float64")
    x = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    expected = properties.definition(x, lambda v: sum(a * b for a, b in zip(WEIGHTS, v, strict=True)))
    torch.testing.assert_close(op(x), expected)
    assert torch.autograd.gradcheck(lambda *v: op(v), x, check_forward_ad=True)


def test_the_weights_are_a_buffer() -> None:
    op = fusionkit.create("weighted_summation", dims=[3] * 3, weights=WEIGHTS)
    assert op.state_dict()["weights"].tolist() == WEIGHTS
    assert op.double().state_dict()["weights"].dtype == torch.float64
    assert op.calculate_l() == 0
    again = fusionkit.create(**op.to_config())
    assert torch.equal(again.state_dict()["weights"], op.state_dict()["weights"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_views(dtype: torch.dtype) -> None:
    op = fusionkit.create("weighted_summation", dims=[3] * 3, weights=WEIGHTS)
    assert op([torch.randn(2, 3).to(dtype) for _ in range(3)]).dtype == dtype


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0], DimsError, r"^weights should hold one number per view, 3; found 1\.$"),
        ([], DimsError, r"^weights should hold one number per view, 3; found 0\.$"),
        ([1.0, "a", 2.0], FusionError, r"^weights\[1\], the weight of view 1, should be a finite number; found 'a'\.$"),
        ([1.0, float("nan"), 2.0], FusionError, r"should be a finite number; found nan\.$"),
        (
            [1.0, 10**400, 2.0],
            FusionError,
            r"^weights\[1\], the weight of view 1, should be a finite number; found 1000",
        ),
        (
            torch.ones(3, requires_grad=True),
            FusionError,
            "^weights should be constant, and parameterized_weighted_summation learns them; found a tensor that "
            r"requires a gradient\.$",
        ),
        (3.0, FusionError, r"^weights should be a sequence of numbers, one per view; found 3\.0\.$"),
    ],
)
def test_bad_weights(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fusionkit.create("weighted_summation", dims=[3] * 3, weights=weights)
