"""Tests of the product of a concatenation with a matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.kernels.matmul import ELEMENTS_PER_LAUNCH, Path, _join_narrow, _quicker_path, linear
from fusionkit.kernels.tracing import Recorder
from tests.gpu_double import OnAGPU


@pytest.fixture(params=["joined", "views"])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


DIMS = [[5], [3, 1, 7], [1, 1, 1, 1, 1], [2, 2, 2, 30, 2, 2], [33, 11], [33, 1, 2, 31, 40], [1] * 40]


@pytest.mark.parametrize("dims", DIMS, ids=lambda dims: "-".join(map(str, dims[:6])))
@pytest.mark.parametrize("n", [1, 4, 17])
@pytest.mark.parametrize("lead", [(), (0,), (6,), (2, 3), (2, 1, 2)])
def test_linear_against_the_definition(dims: list[int], n: int, lead: tuple[int, ...], path: Path) -> None:
    x = [torch.randn(*lead, width, dtype=torch.float64) for width in dims]
    W = torch.randn(n, sum(dims), dtype=torch.float64)
    expected = torch.zeros(*lead, n, dtype=torch.float64)
    start = 0
    for view in x:
        for column in range(view.shape[-1]):
            expected += view[..., column, None] * W[:, start + column]
        start += view.shape[-1]
    torch.testing.assert_close(linear(x, W, path), expected)
    bias = torch.randn(n, dtype=torch.float64)
    torch.testing.assert_close(linear(x, W, path, bias), expected + bias)


@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_derivatives(path: Path, with_bias: bool) -> None:
    x = [torch.randn(4, width, dtype=torch.float64, requires_grad=True) for width in (20, 1, 15)]
    W = torch.randn(5, 36, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def product(W: Tensor, bias: Tensor, *x: Tensor) -> Tensor:
        return linear(x, W, path, bias if with_bias else None)

    inputs = (W, bias if with_bias else bias.detach(), *x)
    assert torch.autograd.gradcheck(product, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(product, inputs)


def test_linear_on_meta(path: Path) -> None:
    x = [torch.empty(5, width, device="meta") for width in (20, 1, 15)]
    assert linear(x, torch.empty(2, 36, device="meta"), path).shape == (5, 2)


def test_linear_under_transforms(path: Path) -> None:
    dims = (20, 1, 15)
    x = [torch.randn(4, width) for width in dims]
    W = torch.randn(2, 36)
    many, biases = torch.randn(6, 2, 36), torch.randn(3, 2)
    torch.testing.assert_close(
        torch.vmap(lambda bias: linear(x, many[0], path, bias))(biases),
        torch.stack([linear(x, many[0], path, bias) for bias in biases]),
    )
    torch.testing.assert_close(
        torch.vmap(lambda W: linear(x, W, path))(many), torch.stack([linear(x, W, path) for W in many])
    )
    torch.testing.assert_close(torch.vmap(lambda a, b, c: linear([a, b, c], W, path))(*x), linear(x, W, path))
    one = torch.vmap(lambda c: linear([x[0][0], x[1][0], c], W, path))(x[2])
    torch.testing.assert_close(one, torch.stack([linear([x[0][0], x[1][0], c], W, path) for c in x[2]]))
    grads = torch.func.vmap(torch.func.grad(lambda W, *x: linear(x, W, path).sum()), in_dims=(None, 0, 0, 0))(W, *x)
    torch.testing.assert_close(grads, torch.cat(x, -1)[:, None].expand(4, 2, 36))


def test_linear_of_noncontiguous_views_leaves_them_alone(path: Path) -> None:
    base = torch.randn(7, 6)
    x = [base.T[:, :3], base.T[:, 3:4].expand(6, 35), torch.randn(6, 80)[:, ::2]]
    versions = [view._version for view in x]
    W = torch.randn(4, 78)
    torch.testing.assert_close(linear(x, W, path), torch.cat(x, -1) @ W.T)
    assert [view._version for view in x] == versions


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dims", [[4] * 1000, [16] * 64, [256] * 40], ids=["1000x4", "64x16", "40x256"])
def test_linear_in_half_precision_on_positive_data(dtype: torch.dtype, dims: list[int], path: Path) -> None:
    x = [torch.rand(8, width).to(dtype) for width in dims]
    W = (torch.rand(16, sum(dims)) / sum(dims)).to(dtype)
    exact = torch.cat(x, -1).double() @ W.double().T
    error = (linear(x, W, path).double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < 0.01


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
def test_linear_makes_no_buffer_of_the_size_of_the_concatenation() -> None:
    x = [torch.randn(4096, 128, requires_grad=True) for _ in range(4)]
    W = torch.randn(128, 512, requires_grad=True)
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = linear(x, W)
    assert max(sizes) < 4096 * 512
    with torch.profiler.profile(profile_memory=True) as profile:
        linear([view.detach() for view in x], W.detach())
        out.sum().backward()
    assert "aten::cat" not in {
        event.key for event in profile.key_averages() if event.cpu_memory_usage >= 4096 * 512 * 4
    }


def test_linear_while_compiling_does_not_depend_on_the_batch() -> None:
    op = ParameterizedConcatenation(dims=[64] * 8, n=16)
    small = [torch.randn(3, 64) for _ in range(8)]
    large = [torch.randn(3000, 64) for _ in range(8)]
    dynamic = {0: torch.export.Dim("batch", min=2, max=2**20)}
    program = torch.export.export(op, (small,), dynamic_shapes=([dynamic] * 8,))
    torch.testing.assert_close(program.module()(large), op(large), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("widths", "limit", "expected"),
    [
        ([8, 8], 32, [16]),
        ([32, 1, 32], 32, [32, 1, 32]),
        ([3, 3, 40, 3, 3], 8, [6, 40, 6]),
        ([4] * 20, 32, [32, 32, 16]),
    ],
)
def test_narrow_neighbours_are_joined(widths: list[int], limit: int, expected: list[int]) -> None:
    x = [torch.randn(2, width) for width in widths]
    rows = _join_narrow(x, limit)
    assert [part.shape[1] for part in rows] == expected
    assert torch.equal(torch.cat(rows, 1), torch.cat(x, 1))


@pytest.mark.parametrize("widths", [[64] * 40, [1000] * 17, [1] * 5000, [5000, 1] * 20])
@pytest.mark.parametrize("way", ["autocast", "bfloat16"])
def test_partial_sums_in_half_precision_are_few(widths: list[int], way: str) -> None:
    dtype = torch.bfloat16 if way == "bfloat16" else torch.float32
    x, W = [torch.randn(2, width, dtype=dtype) for width in widths], torch.randn(3, sum(widths), dtype=dtype)
    with Recorder() as recorder, torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast"):
        linear(x, W, "views")
    products = [operation for operation in recorder.operations if operation.macs]
    assert 1 < len(products) <= 16


def test_a_large_concatenation_is_not_made() -> None:
    def chosen(rows: int, n: int, recorded: bool = False) -> str:
        return _quicker_path([torch.empty(rows, 2**8)] * 2, torch.empty(n, 2**9, requires_grad=recorded))

    assert chosen(2**8, 3) == "joined"
    assert chosen(2**8 + 1, 3) == "views"
    # Smaller than the gradient of W.
    assert chosen(2**10, 2**10, recorded=True) == "joined"
    assert chosen(2**10 + 1, 2**10, recorded=True) == chosen(2**10, 2**10) == "views"


def test_on_a_gpu_joining_saves_launches() -> None:
    W = torch.empty(4, 12, device="meta").as_subclass(OnAGPU)

    def chosen(rows: int, recorded: bool) -> str:
        x = [torch.empty(rows, 4, device="meta", requires_grad=recorded and i == 0) for i in range(3)]
        return _quicker_path(x, W)

    for recorded, most in ((False, 2 * ELEMENTS_PER_LAUNCH), (True, 6 * ELEMENTS_PER_LAUNCH)):
        assert chosen(most // 12, recorded) == "joined"
        assert chosen(most // 12 + 1, recorded) == "views"
