"""embracenet in training: which views are drawn, how often, and what explain says of it."""

from __future__ import annotations

from typing import Any

import fusionkit
import pytest
import torch

ROWS, N = 400, 50


def constant(k: int, dtype: str = "float32") -> Any:
    """Return an operator whose h_i is i + 1 at every coordinate, in training."""
    op: Any = fusionkit.create("embracenet", dims=[2] * k, n=N, dtype=dtype)
    with torch.no_grad():
        for i, project in enumerate(op.inputs):
            project.weight.zero_()
            project.bias.fill_(i + 1)
    return op.train()


def shares(out: torch.Tensor, k: int) -> list[float]:
    return [(out == i + 1).double().mean().item() for i in range(k)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_view_is_drawn_evenly(masked: bool, dtype: str) -> None:
    torch.manual_seed(0)
    op = constant(3, dtype)
    x = [torch.randn(ROWS, 2).to(op.inputs[0].weight.dtype) for _ in range(3)]
    mask = torch.ones(ROWS, 3, dtype=torch.bool) if masked else None
    out = op(x, mask=mask)
    # Four standard deviations of a share of 20,000 draws are 0.013.
    assert shares(out, 3) == pytest.approx([1 / 3] * 3, abs=0.013)
    # Each coordinate on its own: neither rows nor columns are of one view.
    assert (out.float().std(0) > 0.5).all()
    assert (out.float().std(1) > 0.5).all()


def test_only_present_views_are_drawn() -> None:
    torch.manual_seed(0)
    op = constant(4)
    x = [torch.randn(ROWS, 2) for _ in range(4)]
    mask = torch.tensor(
        [[False, True, False, True], [False] * 4, [True, True, True, False], [False, False, True, False]]
    )
    out = op(x, mask=mask.repeat(ROWS // 4, 1)).unflatten(0, (-1, 4))
    assert shares(out[:, 0], 4) == pytest.approx([0, 1 / 2, 0, 1 / 2], abs=0.03)
    assert not out[:, 1].any()
    assert shares(out[:, 2], 4) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=0.03)
    assert (out[:, 3] == 3).all()


def test_explain_counts_the_draw() -> None:
    op = constant(3)
    x = [torch.randn(4, 2) for _ in range(3)]
    mask = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    for given in (None, mask):
        torch.manual_seed(1)
        said = op.explain(x, mask=given)
        torch.manual_seed(1)
        out = op(x, mask=given)
        assert torch.equal(said["output"], out)
        counted = torch.stack([(out == i + 1).float().mean(-1) for i in range(3)], -1)
        torch.testing.assert_close(said["weights"], counted)


def test_relu_of_the_view_that_is_drawn_gets_the_gradient() -> None:
    torch.manual_seed(0)
    op: Any = fusionkit.create("embracenet", dims=[3, 3], n=N, dtype="float64").train()
    x = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    out = op(x)
    h = [torch.relu(project([view])) for project, view in zip(op.inputs, x, strict=True)]
    assert ((out == h[0]) | (out == h[1])).all()
    mixed = torch.where(out == h[0], h[0], h[1])
    for one, other in zip(torch.autograd.grad(out.sum(), x), torch.autograd.grad(mixed.sum(), x), strict=True):
        torch.testing.assert_close(one, other)


def test_evaluation_draws_nothing() -> None:
    op = constant(3).eval()
    x = [torch.randn(4, 2) for _ in range(3)]
    before = torch.get_rng_state()
    assert (op(x) == 2).all()
    assert torch.equal(torch.get_rng_state(), before)


def test_one_view_is_not_random() -> None:
    op = constant(1)
    x = [torch.randn(4, 2)]
    before = torch.get_rng_state()
    assert (op(x) == 1).all()
    assert torch.equal(torch.get_rng_state(), before)
    assert not op.traits.stochastic
    assert not op.traits.train_eval_differ
    assert type(op).traits.stochastic
