from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrications.tensor_train import TensorTrain, _factors
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


def train(w: list[float], heights: list[int], widths: list[int], r: int, n: int, D: int) -> list[list[float]]:
    """Sum the products of the entries of the cores over all paths of inner indices."""
    c = len(heights)
    ranks = [1] + [r] * (c - 1) + [1]
    starts = [sum(ranks[k] * heights[k] * widths[k] * ranks[k + 1] for k in range(end)) for end in range(c)]
    W = [[0.0] * D for _ in range(n)]
    for rows, columns in product(product(*map(range, heights)), product(*map(range, widths))):
        i = j = 0
        for k in range(c):
            i, j = i * heights[k] + rows[k], j * widths[k] + columns[k]
        if i >= n or j >= D:
            continue
        for inner in product(range(r), repeat=c - 1):
            path = (0, *inner, 0)
            W[i][j] += prod(
                w[starts[k] + ((path[k] * heights[k] + rows[k]) * widths[k] + columns[k]) * ranks[k + 1] + path[k + 1]]
                for k in range(c)
            )
    return W


@pytest.mark.parametrize(
    ("n", "D", "r", "cores"), [(1, 1, 1, 3), (5, 7, 3, 2), (7, 5, 2, 3), (4, 1, 1, 2), (16, 31, 2, 4), (13, 3, 2, 3)]
)
def test_against_loops(n: int, D: int, r: int, cores: int) -> None:
    made = TensorTrain(r=r, cores=cores)
    heights, widths = made.factors(n, D)
    shapes = made.shapes(n, D)
    inner = [(r, a, b, r) for a, b in zip(heights, widths, strict=True)]
    expected = [inner[0][1:], *inner[1:-1], inner[-1][:3]]
    assert list(shapes.items()) == [(f"G_{k}", shape) for k, shape in enumerate(expected, 1)]
    w = torch.randn(made.calculate_l(n, D), dtype=torch.float64)
    assert len(w) == sum(prod(shape) for shape in expected)
    W = torch.tensor(train(w.tolist(), heights, widths, r, n, D), dtype=torch.float64)
    torch.testing.assert_close(made.materialize(w, n, D), W)
    x = torch.randn(3, D, dtype=torch.float64)
    torch.testing.assert_close(made._project([x], made.split(w, n, D), n), x @ W.T)


def test_factors_cover_the_size_and_waste_no_entry() -> None:
    for size in range(1, 400):
        for count in (2, 3, 4, 9):
            factors = _factors(size, count)
            assert len(factors) == count
            assert min(factors) >= 1
            # The first is the least that covers, the others alone do not exceed: no digit is beyond the last row.
            assert prod(factors) >= size > (factors[0] - 1) * prod(factors[1:])
            assert prod(factors[1:]) <= size
    assert _factors(64, 3) == [4, 4, 4]
    assert _factors(1024, 2) == [32, 32]


@pytest.mark.parametrize(("n", "D", "r"), [(64, 649, 8), (1, 1, 1), (1, 7, 2), (2, 2, 1)])
def test_default_rank(n: int, D: int, r: int) -> None:
    assert TensorTrain().rank(n, D) == r


def test_a_full_rank_train_of_two_cores_has_full_rank() -> None:
    made = TensorTrain(r=9, cores=2)
    W = made.materialize(torch.randn(made.calculate_l(9, 9), dtype=torch.float64), 9, 9)
    assert torch.linalg.matrix_rank(W) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 5}, "r, the rank of tensor_train, should be from 1 to the greatest rank that every bond can use = 4 "),
        (
            {"cores": 4},
            "cores, the number of cores of tensor_train, should be from 2 to max(3, ceil(log2(max(n, D)))) = 3 ",
        ),
    ],
)
def test_options_out_of_range_are_refused_by_the_operator(options: dict[str, int], message: str) -> None:
    with pytest.raises(FusionError) as caught:
        ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication={"name": "tensor_train", **options})
    assert str(caught.value) == f"{message}for n = 5 and D = 7; found {next(iter(options.values()))}."


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
def test_bad_options(value: Any) -> None:
    with pytest.raises(DimsError, match=r"^r, the rank of tensor_train, should .*found "):
        TensorTrain(r=value)
    with pytest.raises(DimsError, match=r"^cores, the number of cores of tensor_train, should "):
        TensorTrain(cores=value)


def test_W_is_never_built_nor_anything_of_its_size() -> None:
    n, dims = 1000, [500, 503]
    op = ParameterizedConcatenation(n, dims, parameter_fabrication={"name": "tensor_train", "r": 2})
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in [out] if isinstance(t, torch.Tensor))
            return out

    with Watch():  # type: ignore[no-untyped-call]
        op.fabrication._project(
            [torch.randn(16, width) for width in dims], dict(op.named_parameters()), n
        ).sum().backward()
    assert max(sizes) < n * sum(dims) / 4


@pytest.mark.parametrize(("n", "widths"), [(1000, [500, 503]), (1, [600_000, 400_001])])
def test_a_large_W_is_made_in_slabs(n: int, widths: list[int]) -> None:
    op = ParameterizedConcatenation(n, widths, parameter_fabrication={"name": "tensor_train", "r": 2})
    blocks, x = dict(op.named_parameters()), [torch.randn(2, width) for width in widths]
    with torch.no_grad():
        found = op.fabrication.multiply_built(x, blocks, n)
        expected = torch.cat(x, -1) @ op.fabrication.materialize(op.flat_w(), n, sum(widths)).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
