from __future__ import annotations

import pytest
import torch

from fusionkit.fusions.average import Average


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("lead", [(), (0,), (5,), (2, 3)])
def test_against_a_loop(k: int, lead: tuple[int, ...]) -> None:
    x = [torch.randn(*lead, 3, dtype=torch.float64, requires_grad=True) for _ in range(k)]
    op = Average(dims=[3] * k)
    expected = torch.zeros(*lead, 3, dtype=torch.float64)
    for view in x:
        expected = expected + view / k
    torch.testing.assert_close(op(x), expected)
    assert torch.autograd.gradcheck(lambda *views: op(views), x, check_forward_ad=True)


def test_large_values_do_not_overflow_in_half_precision() -> None:
    x = [torch.full((2, 3), 60000.0, dtype=torch.float16) for _ in range(4)]
    assert torch.equal(Average(dims=[3] * 4)(x), x[0])


def test_one_view_is_not_aliased() -> None:
    x = torch.randn(2, 3)
    assert Average(dims=[3])([x]).data_ptr() != x.data_ptr()
