from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrications.lowrank import LowRank
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


@pytest.mark.parametrize(("n", "D", "r"), [(5, 7, 2), (1, 1, 1), (4, 3, 3), (11, 2, 1)])
def test_against_loops(n: int, D: int, r: int) -> None:
    w = torch.randn(r * (n + D), dtype=torch.float64)
    expected = torch.zeros(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            for s in range(r):
                expected[i, j] += w[i * r + s] * w[n * r + s * D + j]
    torch.testing.assert_close(LowRank(r=r).materialize(w, n, D), expected)
    assert LowRank(r=r).calculate_l(n, D) == len(w)
    assert LowRank(r=r).shapes(n, D) == {"A": (n, r), "B": (r, D)}


@pytest.mark.parametrize(("n", "D", "r"), [(64, 649, 8), (3, 50, 3), (50, 2, 2), (1, 1, 1)])
def test_default_rank(n: int, D: int, r: int) -> None:
    assert LowRank().rank(n, D) == r


def test_the_norm_needs_no_W() -> None:
    blocks = {"A": torch.randn(5, 2, dtype=torch.float64), "B": torch.randn(2, 7, dtype=torch.float64)}
    norm = LowRank(r=2)._squared_norm(blocks, 5, 7)
    torch.testing.assert_close(norm, (blocks["A"] @ blocks["B"]).square().sum())


@pytest.mark.parametrize("r", [0, -1, 2.5, "8", True])
def test_bad_rank(r: Any) -> None:
    with pytest.raises(DimsError, match=r"^r, the rank of lowrank, should .*found "):
        LowRank(r=r)


def test_rank_out_of_range_is_refused_by_the_operator() -> None:
    with pytest.raises(FusionError) as caught:
        ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=LowRank(r=6))
    assert str(caught.value) == (
        "r, the rank of lowrank, should be from 1 to min(n, D) = 5 for n = 5 and D = 7; found 6."
    )


def test_W_is_never_built() -> None:
    n, dims = 1024, [1024] * 4
    op = ParameterizedConcatenation(dims=dims, n=n, parameter_fabrication="lowrank")
    x = [torch.randn(512, width, requires_grad=True) for width in dims]
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():  # type: ignore[no-untyped-call]
        op(x).sum().backward()
    assert largest <= 512 * 1024
