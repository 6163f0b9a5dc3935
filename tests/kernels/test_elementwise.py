from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.fusions.median import program
from fusionkit.kernels.elementwise import BLOCK, blocks
from tests.allocations import largest
from tests.exhaustive import exhaustive

SELECTIONS = ["maximum", "minimum", "median"]


def tied(k: int, *shape: int) -> list[Tensor]:
    """Views of few different values, so that two, three and more of them are equal in many places."""
    return [torch.randint(0, 3, shape).double().requires_grad_() for _ in range(k)]


def shares(name: str, x: list[Tensor]) -> list[Tensor]:
    """Return the gradients of the sum of the output: 1/t for each of the t views that have the value of the output."""
    stack = torch.stack([view.detach() for view in x])
    value = {"maximum": stack.amax(0), "minimum": stack.amin(0), "median": stack.median(0).values}[name]
    chosen = (stack == value).double()
    return list(chosen / chosen.sum(0))


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("k", [3, *exhaustive([1, 2, 5, 8, 40])])
def test_ties_share_the_gradient_evenly_on_every_path(name: str, k: int) -> None:
    op, x = fusionkit.create(name, dims=[4] * k), tied(k, 6, 4)
    expected = shares(name, x)
    ones = torch.ones(6, 4, dtype=torch.float64)
    eager = torch.autograd.grad(op(x).sum(), x)
    recorded = torch.autograd.grad(op(x).sum(), x, create_graph=True)
    transformed = torch.func.grad(lambda x: op(x).sum())(x)
    rows = torch.vmap(torch.func.grad(lambda x: op(x).sum()))(x)
    torch._dynamo.reset()
    compiled = torch.autograd.grad(torch.compile(op, fullgraph=True, backend="aot_eager")(x).sum(), x)
    for found in (eager, recorded, transformed, rows, compiled):
        for one, right in zip(found, expected, strict=True):
            torch.testing.assert_close(one, right)
    for i, right in enumerate(expected):
        tangents = [ones if i == j else torch.zeros_like(ones) for j in range(k)]
        torch.testing.assert_close(torch.func.jvp(lambda *x: op(x), tuple(x), tuple(tangents))[1], right)
        with torch.autograd.forward_ad.dual_level():
            duals = [torch.autograd.forward_ad.make_dual(a.detach(), b) for a, b in zip(x, tangents, strict=True)]
            torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(op(duals)).tangent, right)


@pytest.mark.parametrize("name", SELECTIONS)
def test_gradients_of_many_blocks(name: str) -> None:
    k = 5
    x = tied(k, BLOCK // 16 + 7, 33)
    for views in (x, [view.detach().T.contiguous().T.requires_grad_() for view in x]):
        found = torch.autograd.grad(fusionkit.create(name, dims=[33] * k)(views).sum(), views)
        for one, right in zip(found, shares(name, views), strict=True):
            torch.testing.assert_close(one, right)


@pytest.mark.parametrize("name", SELECTIONS)
def test_only_some_views_require_a_gradient(name: str) -> None:
    x = [view.requires_grad_(i == 1) for i, view in enumerate(tied(3, 6, 4))]
    (found,) = torch.autograd.grad(fusionkit.create(name, dims=[4] * 3)(x).sum(), [x[1]])
    torch.testing.assert_close(found, shares(name, x)[1])


@pytest.mark.parametrize("name", [*SELECTIONS, "l1_norm", "l2_norm", "product"])
@pytest.mark.parametrize("path", ["eager", "recorded", "vmap", "compiled", "dual"])
def test_infinite_and_nan_entries(name: str, path: str) -> None:
    inf, nan = float("inf"), float("nan")
    x = [torch.tensor([[inf, -inf, nan, 1.0, inf]]), torch.tensor([[2.0, 3.0, 4.0, nan, -inf]])]
    op: Any = fusionkit.create(name, dims=[5, 5])
    expected = op.reference(x).float()
    if path == "recorded":
        x = [view.requires_grad_() for view in x]
    dynamo: Any = torch.compile
    functions: dict[str, Callable[[], Tensor]] = {
        "eager": lambda: op(x),
        "recorded": lambda: op(x),
        "vmap": lambda: torch.vmap(lambda *x: op(x))(*x),
        "compiled": lambda: dynamo(op, fullgraph=True, backend="aot_eager")(x),
        "dual": lambda: torch.func.jvp(op, (x,), (x,))[0],
    }
    torch._dynamo.reset()
    found = functions[path]()
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("upstream", [1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("path", ["eager", "vjp", "compiled"])
def test_the_gradient_goes_to_the_chosen_view_alone(name: str, upstream: float, path: str) -> None:
    inf = float("inf")
    x = [
        torch.tensor([[3.0, inf, -inf, 1.0]]),
        torch.tensor([[2.0, 1.0, 1.0, 1.0]]),
        torch.tensor([[1.0, 1.0, -1.0, 1.0]]),
    ]
    op: Any = fusionkit.create(name, dims=[4] * 3)
    out = op(x)
    ties = sum((view == out).float() for view in x)
    expected = [torch.where(view == out, upstream / ties, 0.0) for view in x]
    call = op
    if path == "compiled":
        torch._dynamo.reset()
        call = torch.compile(op, fullgraph=True, backend="aot_eager")
    if path == "vjp":
        found = torch.func.vjp(lambda *views: op(list(views)), *x)[1](torch.full_like(out, upstream))
    else:
        leaves = [view.clone().requires_grad_() for view in x]
        found = torch.autograd.grad(call(leaves), leaves, torch.full_like(out, upstream))
    for one, right in zip(found, expected, strict=True):
        torch.testing.assert_close(one, right, equal_nan=True)


@pytest.mark.parametrize("name", ["l1_norm", "l2_norm", "product", "average", "summation", "metric"])
@pytest.mark.parametrize("upstream", [1.0, float("inf"), float("nan")])
def test_fast_and_slow_gradients_agree_outside_the_finite_numbers(name: str, upstream: float) -> None:
    values = [float("inf"), -float("inf"), float("nan"), 0.0, 1.0, -2.0, 3e38]
    x = list(torch.tensor(list(itertools.product(values, repeat=3))).T.unsqueeze(2))
    op: Any = fusionkit.create(name, dims=[1] * 3)
    leaves = [view.clone().requires_grad_() for view in x]
    out = op(leaves)
    fast = torch.autograd.grad(out, leaves, torch.full_like(out, upstream))
    slow = torch.func.vjp(lambda *views: op(list(views)), *x)[1](torch.full_like(out, upstream))
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


@pytest.mark.parametrize("name", [*SELECTIONS, "l1_norm", "l2_norm", "product"])
def test_meta_and_fake_views_have_the_strides_of_real_ones(name: str) -> None:
    op = fusionkit.create(name, dims=[3] * 4)
    for base in (torch.randn(4, 5, 3), torch.randn(4, 3, 5).mT, torch.randn(4, 5, 6)[..., ::2]):
        x = list(base)
        real = op(x)
        assert op([view.to("meta") for view in x]).shape == real.shape
        with torch._subclasses.FakeTensorMode() as mode:
            fake = op([mode.from_tensor(view) for view in x])
        assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.parametrize("name", ["maximum", "median", "l2_norm"])
def test_no_copy_of_the_views_is_kept(name: str) -> None:
    """Neither forward nor backward makes anything as large as all views together."""
    x = [torch.randn(4000, 25, requires_grad=True) for _ in range(8)]
    op = fusionkit.create(name, dims=[25] * 8)
    assert largest(lambda: op(x).sum().backward()) <= x[0].untyped_storage().nbytes()


def test_blocks_cover_everything_once() -> None:
    for shape in ((3 * BLOCK // 8 + 1, 8), (5, BLOCK), (BLOCK + 3,), (2, 3), (0, 4)):
        for out in (torch.zeros(shape), torch.zeros(shape[::-1]).permute(*reversed(range(len(shape))))):
            x = [torch.randn(shape), torch.randn(2, *shape)[1]]
            for block, (first, second) in blocks(x, out):
                assert block.shape == first.shape == second.shape
                assert block.numel() <= max(BLOCK, shape[-1])
                block += first + second
            assert torch.equal(out, x[0] + x[1])


@pytest.mark.parametrize(("k", "steps"), [(2, 1), (3, 4), (5, 12), (8, 27), (9, 40), (16, 91)])
def test_the_network_is_pruned(k: int, steps: int) -> None:
    """Batcher's network sorts 8 values by 19 comparators, 38 steps."""
    assert len(program(k)) == steps


@pytest.mark.parametrize("k", range(2, 12))
def test_the_network_finds_the_median_of_zeros_and_ones(k: int) -> None:
    """What selects the median of all zeros and ones selects that of any numbers (Knuth, theorem 5.3.4Z)."""
    numbers = torch.arange(2**k)
    x = [(numbers >> i & 1).float() for i in range(k)]
    assert torch.equal(fusionkit.create("median", dims=[2**k] * k)(x), torch.stack(x).sort(0).values[(k - 1) // 2])
