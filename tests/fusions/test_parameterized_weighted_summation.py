from __future__ import annotations

import torch

import fusionkit


def test_against_a_loop_with_external_w() -> None:
    op = fusionkit.create("parameterized_weighted_summation", dims=[3] * 4, dtype="float64")
    x = [torch.randn(5, 3, dtype=torch.float64) for _ in range(4)]
    w = torch.randn(4, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for i, view in enumerate(x):
        expected = expected + w[i] * view
    torch.testing.assert_close(op(x, w=w), expected)
    assert torch.autograd.gradcheck(lambda w: op(x, w=w), w, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda w: op(x, w=w), w)


def test_one_weight_per_view() -> None:
    op = fusionkit.create("parameterized_weighted_summation", dims=[3] * 4)
    assert op.calculate_l() == 4
    assert {name: tuple(p.shape) for name, p in op.named_parameters()} == {"weight": (4,)}
    assert op.flat_w().tolist() == [0.5] * 4
