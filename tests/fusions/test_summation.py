from __future__ import annotations

import pytest
import torch

from fusionkit.errors import DimsError
from fusionkit.fusions.summation import Summation


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("lead", [(), (0,), (5,), (2, 3)])
def test_against_a_loop(k: int, lead: tuple[int, ...]) -> None:
    x = [torch.randn(*lead, 3, dtype=torch.float64, requires_grad=True) for _ in range(k)]
    op = Summation(dims=[3] * k)
    expected = torch.zeros(*lead, 3, dtype=torch.float64)
    for view in x:
        expected = expected + view
    torch.testing.assert_close(op(x), expected)
    assert torch.autograd.gradcheck(lambda *views: op(views), x, check_forward_ad=True)
    assert (op.calculate_n(), op.calculate_l()) == (3, 0)


def test_one_view_is_not_aliased() -> None:
    x = torch.randn(2, 3)
    out = Summation(dims=[3])([x])
    out.zero_()
    assert x.abs().sum() > 0


def test_vmap_over_one_view() -> None:
    op, a, b, c = Summation(dims=[3, 3, 3]), torch.randn(3), torch.randn(3), torch.randn(4, 3)
    torch.testing.assert_close(torch.vmap(lambda c: op([a, b, c]))(c), a + b + c)


def test_unequal_widths() -> None:
    with pytest.raises(DimsError) as caught:
        Summation(dims=[3, 3, 4])
    assert str(caught.value) == (
        "summation should get views of equal width; found dims [3, 3, 4], where view 2 has width 4 and view 0 has 3."
    )
