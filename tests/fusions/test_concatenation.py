from __future__ import annotations

import pytest
import torch

from fusionkit.fusions.concatenation import Concatenation


@pytest.mark.parametrize("dims", [[1], [4], [3, 1, 7], [2] * 11])
@pytest.mark.parametrize("lead", [(), (0,), (5,), (2, 3)])
def test_against_a_loop(dims: list[int], lead: tuple[int, ...]) -> None:
    x = [torch.randn(*lead, width, dtype=torch.float64, requires_grad=True) for width in dims]
    op = Concatenation(dims=dims)
    assert torch.equal(op(x), op.reference(x))
    assert torch.autograd.gradcheck(lambda *views: op(views), x, check_forward_ad=True)
    assert (op.calculate_n(), op.calculate_l()) == (sum(dims), 0)


def test_one_view_is_not_aliased() -> None:
    x = torch.randn(2, 3)
    assert Concatenation(dims=[3])([x]).data_ptr() != x.data_ptr()
