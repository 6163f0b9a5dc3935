from __future__ import annotations

import pytest
import torch

from fusionkit.fabrications.constant_eye import ConstantEye


@pytest.mark.parametrize(
    ("n", "dims"), [(1, [2, 3]), (2, [2, 3]), (4, [2, 3]), (5, [2, 3]), (8, [2, 3]), (3, [3]), (1, [1])]
)
def test_against_loops(n: int, dims: list[int]) -> None:
    x = [torch.randn(3, width) for width in dims]
    rows = [[float(entry) for view in x for entry in view[row]] for row in range(3)]
    expected = [[row[i] if i < len(row) else 0.0 for i in range(n)] for row in rows]
    out = ConstantEye().project(x, torch.empty(0), n)
    assert out.tolist() == expected
    assert out.data_ptr() not in [view.data_ptr() for view in x]
    W = ConstantEye().materialize(torch.empty(0, dtype=torch.float64), n, sum(dims))
    assert W.tolist() == [[float(i == j) for j in range(sum(dims))] for i in range(n)]
    assert ConstantEye().calculate_l(n, sum(dims)) == 0


@pytest.mark.parametrize("lead", [(), (2,)])
def test_a_view_that_is_not_taken_has_the_gradient_zero(lead: tuple[int, ...]) -> None:
    x = [torch.randn(*lead, width, requires_grad=True) for width in (2, 3, 4)]
    out = ConstantEye().project(x, torch.empty(0), 3)
    grads = torch.autograd.grad(out.sum(), x)
    expected = ([1.0, 1.0], [1.0, 0.0, 0.0], [0.0] * 4)
    for grad, row in zip(grads, expected, strict=True):
        assert torch.equal(grad, torch.tensor(row).expand(*lead, len(row)))
