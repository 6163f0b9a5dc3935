"""What every elementwise fusion promises; each test module brings the loop-written definition."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import fusionkit
from fusionkit.kernels.elementwise import BLOCK

Entry = Callable[[list[float]], float]

LEADS: list[tuple[int, ...]] = [(), (0,), (5,), (2, 3)]
KS = [1, 2, 3, 4, 7, 8]


def definition(x: list[Tensor], entry: Entry) -> Tensor:
    """Apply ``entry`` to the k numbers at each position, one position after the other."""
    x = [view.detach() for view in x]
    out = torch.empty_like(x[0])
    for index in itertools.product(*map(range, out.shape)):
        out[index] = entry([float(view[index]) for view in x])
    return out


def values(name: str, entry: Entry, **options: Any) -> None:
    for k, lead in itertools.product(KS, LEADS):
        op = fusionkit.create(name, dims=[3] * k, dtype="float64", **options)
        x = [torch.randn(*lead, 3, dtype=torch.float64) for _ in range(k)]
        torch.testing.assert_close(op(x), definition(x, entry))
        # The path that records no gradient, the one that does, and the one inside transforms.
        grad = [view.clone().requires_grad_() for view in x]
        torch.testing.assert_close(op(grad), definition(x, entry))
        if lead == (5,):
            torch.testing.assert_close(torch.vmap(lambda *v, op=op: op(v))(*x), definition(x, entry))
        assert (op.calculate_n(), op.calculate_l()) == (3, sum(p.numel() for p in op.parameters()))


def derivatives(name: str, **options: Any) -> None:
    for k in (1, 2, 5):
        op = fusionkit.create(name, dims=[3] * k, dtype="float64", **options)
        x = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(k)]
        assert torch.autograd.gradcheck(lambda *v, op=op: op(v), x, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(lambda *v, op=op: op(v), x)


def large(name: str) -> None:
    """Blocks: more elements than one of them, contiguous and not, against the stacked reference."""
    with mock.patch("fusionkit.kernels.elementwise.LARGE_BLOCK", BLOCK):
        _large(name)


def _large(name: str) -> None:
    for shape in ((70_001, 5), (3, 100_003)):
        op: Any = fusionkit.create(name, dims=[shape[-1]] * 5)
        x = [torch.randn(shape) for _ in range(5)]
        torch.testing.assert_close(op(x), op.reference(x).float())
        strided = [torch.randn(2 * shape[0], shape[1])[::2] for _ in range(5)]
        torch.testing.assert_close(op(strided), op.reference(strided).float())


def nan(name: str) -> None:
    op = fusionkit.create(name, dims=[2] * 4)
    x = [torch.randn(3, 2) for _ in range(4)]
    x[2][1, 0] = float("nan")
    assert op(x).isnan().nonzero().tolist() == [[1, 0]]


def compiles(name: str, **options: Any) -> None:
    torch._dynamo.reset()
    op = fusionkit.create(name, dims=[3] * 3, **options)
    x = [torch.randn(4, 3) for _ in range(3)]
    torch.testing.assert_close(torch.compile(op, fullgraph=True, backend="aot_eager")(x), op(x))
