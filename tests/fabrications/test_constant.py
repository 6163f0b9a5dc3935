from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.errors import FusionError
from fusionkit.fabrications.constant import Constant
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


def column_sums(x: list[Tensor], value: float, n: int) -> list[list[float]]:
    return [[value * sum(float(entry) for view in x for entry in view[row])] * n for row in range(len(x[0]))]


@pytest.mark.parametrize("value", [1.0, -0.3, 0.0, 7])
def test_against_loops(value: float) -> None:
    x = [torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)]
    w = torch.empty(0, dtype=torch.float64)
    out = Constant(value).project(x, w, 4)
    torch.testing.assert_close(out, torch.tensor(column_sums(x, value, 4), dtype=torch.float64))
    assert Constant(value).materialize(w, 2, 3).tolist() == [[value] * 3] * 2
    assert Constant(value).calculate_l(4, 7) == 0


def test_the_default_is_that_of_the_reference_library() -> None:
    assert Constant().materialize(torch.empty(0), 1, 1).item() == 1


def test_W_follows_the_operator_to_every_dtype_and_stays_in_no_tensor() -> None:
    op = ParameterizedConcatenation(dims=[2, 3], n=4, parameter_fabrication=Constant(0.5))
    assert not op.state_dict()
    for dtype in (torch.float64, torch.bfloat16):
        out = op.to(dtype)([torch.ones(2, 2, dtype=dtype), torch.ones(2, 3, dtype=dtype)])
        assert out.dtype == dtype
        assert out.tolist() == [[2.5] * 4] * 2
    assert not [value for value in vars(op.fabrication).values() if isinstance(value, Tensor)]


def test_the_sum_of_many_half_precision_columns_is_exact() -> None:
    x = [torch.ones(1, 3, dtype=torch.bfloat16) for _ in range(1000)]
    op = ParameterizedConcatenation(dims=[3] * 1000, n=2, parameter_fabrication="constant")
    assert op(x).tolist() == [[3008.0] * 2]  # The bfloat16 next to 3000.


def test_the_output_is_memory_of_its_own() -> None:
    out = fusionkit.create("parameterized_concatenation", dims=[3], n=4, parameter_fabrication="one")(
        [torch.ones(2, 3)]
    )
    out += torch.arange(4)
    assert out.tolist() == [[3, 4, 5, 6]] * 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True, None])
def test_bad_value(value: Any) -> None:
    with pytest.raises(FusionError) as caught:
        Constant(value)
    assert str(caught.value) == f"value, the entries of the constant W, should be a finite number; found {value!r}."
