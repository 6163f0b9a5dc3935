"""Tests of the product of a concatenation with a matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.kernels import matmul as multiplication
from fusionkit.kernels.matmul import LAUNCHED_VIEW, _groups, _joining_pays, block_products, cutting_pays, linear
from tests.gpu_double import OnAGPU


@pytest.fixture(params=["small", "large", "blocks"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Concatenate always, or never; or never, in row blocks of one to a few rows."""
    limit = 2**60 if request.param == "small" else 0
    monkeypatch.setattr(multiplication, "SMALL_VIEW", limit)
    monkeypatch.setattr(multiplication, "CONCATENATE_ELEMENTS", 0)
    if request.param == "blocks":
        for name, value in {"LARGE_RESULT": 0, "BLOCK_ELEMENTS": 13, "BLOCK_ROWS": 1}.items():
            monkeypatch.setattr(multiplication, name, value)
    return str(request.param)


DIMS = [[5], [3, 1, 7], [1, 1, 1, 1, 1], [2, 2, 2, 30, 2, 2], [13, 11], [1] * 40]


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dims", DIMS, ids=lambda dims: "-".join(map(str, dims[:6])))
@pytest.mark.parametrize("n", [1, 4, 17])
@pytest.mark.parametrize("lead", [(), (0,), (6,), (2, 3), (2, 1, 2)])
def test_linear_against_the_definition(dims: list[int], n: int, lead: tuple[int, ...]) -> None:
    x = [torch.randn(*lead, width, dtype=torch.float64) for width in dims]
    W = torch.randn(n, sum(dims), dtype=torch.float64)
    expected = torch.zeros(*lead, n, dtype=torch.float64)
    start = 0
    for view in x:
        for column in range(view.shape[-1]):
            expected += view[..., column, None] * W[:, start + column]
        start += view.shape[-1]
    torch.testing.assert_close(linear(x, W), expected)


@pytest.mark.usefixtures("path")
def test_linear_derivatives() -> None:
    x = [torch.randn(4, width, dtype=torch.float64, requires_grad=True) for width in (3, 1, 7)]
    W = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    inputs = (W, *x)
    assert torch.autograd.gradcheck(lambda W, *x: linear(x, W), inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda W, *x: linear(x, W), inputs)


@pytest.mark.usefixtures("path")
def test_linear_on_meta() -> None:
    x = [torch.empty(5, width, device="meta") for width in (3, 1, 7)]
    assert linear(x, torch.empty(2, 11, device="meta")).shape == (5, 2)


@pytest.mark.usefixtures("path")
def test_linear_under_transforms() -> None:
    dims = (3, 1, 7)
    x = [torch.randn(4, width) for width in dims]
    W = torch.randn(2, 11)
    many = torch.randn(6, 2, 11)
    torch.testing.assert_close(torch.vmap(lambda W: linear(x, W))(many), torch.stack([linear(x, W) for W in many]))
    torch.testing.assert_close(torch.vmap(lambda a, b, c: linear([a, b, c], W))(*x), linear(x, W))
    one = torch.vmap(lambda c: linear([x[0][0], x[1][0], c], W))(x[2])
    torch.testing.assert_close(one, torch.stack([linear([x[0][0], x[1][0], c], W) for c in x[2]]))
    grads = torch.func.vmap(torch.func.grad(lambda W, *x: linear(x, W).sum()), in_dims=(None, 0, 0, 0))(W, *x)
    torch.testing.assert_close(grads, torch.cat(x, -1)[:, None].expand(4, 2, 11))


@pytest.mark.usefixtures("path")
def test_linear_of_noncontiguous_views_leaves_them_alone() -> None:
    base = torch.randn(7, 6)
    x = [base.T[:, :3], base.T[:, 3:4].expand(6, 5), torch.randn(6, 8)[:, ::2]]
    versions = [view._version for view in x]
    W = torch.randn(4, 12)
    torch.testing.assert_close(linear(x, W), torch.cat(x, -1) @ W.T)
    assert [view._version for view in x] == versions


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dims", [[4] * 1000, [16] * 64, [256] * 40], ids=["1000x4", "64x16", "40x256"])
def test_linear_in_half_precision_on_positive_data(dtype: torch.dtype, dims: list[int]) -> None:
    x = [torch.rand(8, width).to(dtype) for width in dims]
    W = (torch.rand(16, sum(dims)) / sum(dims)).to(dtype)
    exact = torch.cat(x, -1).double() @ W.double().T
    error = (linear(x, W).double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
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
    ("widths", "n", "most", "expected"),
    [
        ([8, 8], 16, None, [(0, 1), (1, 2)]),
        ([3, 3, 8, 3, 3], 16, None, [(0, 2), (2, 3), (3, 5)]),
        ([3] * 4, 4, None, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ([100] * 12, 1000, None, [(0, 5), (5, 10), (10, 12)]),
        ([600, 600], 4000, None, [(0, 1), (1, 2)]),
    ],
)
def test_groups(widths: list[int], n: int, most: int | None, expected: list[tuple[int, int]]) -> None:
    assert _groups(tuple(widths), n, most) == expected


@pytest.mark.parametrize("widths", [[64] * 40, [1000] * 17, [1] * 5000, [5000, 1] * 20])
def test_groups_in_half_precision_are_few(widths: list[int]) -> None:
    groups = _groups(tuple(widths), 8, 16)
    assert len(groups) <= 16
    assert [i for a, b in groups for i in range(a, b)] == list(range(len(widths)))


find_convolutions = multiplication._convolutions.__wrapped__


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Accumulate every product with few columns by oneDNN; the list counts these."""
    monkeypatch.setattr(multiplication, "SMALL_VIEW", 0)
    monkeypatch.setattr(multiplication, "CONCATENATE_ELEMENTS", 0)
    monkeypatch.setattr(multiplication, "STREAMED", 0)
    monkeypatch.setattr(multiplication, "STREAMED_VIEW", 0)
    monkeypatch.setattr(multiplication, "STREAMED_WIDTH", 0)
    counted = []
    convolutions = multiplication._convolutions()
    if convolutions is None:
        pytest.skip("needs AVX-512 and a torch with oneDNN")
    first, accumulate = convolutions

    def add(*arguments: object) -> Tensor:
        counted.append(1)
        added: Tensor = accumulate(*arguments)
        return added

    monkeypatch.setattr(multiplication, "_convolutions", lambda: (first, add))
    return counted


@pytest.mark.parametrize(
    "dims", [[5, 3], [1, 1, 1], [1, 6, 1], [64] * 8, [20, 7, 33, 16]], ids=lambda dims: "-".join(map(str, dims))
)
@pytest.mark.parametrize("n", [1, 3, 16, 64])
@pytest.mark.parametrize("m", [1, 2, 37, 1500])
def test_streamed_products_against_float64(dims: list[int], n: int, m: int, streamed: list[int]) -> None:
    x = [torch.randn(m, width, requires_grad=True) for width in dims]
    W = torch.randn(n, sum(dims), requires_grad=True)
    multiplied = multiplication._product(W.detach(), [view.detach() for view in x])
    expected = (torch.cat(x, -1).double() @ W.double().T).float()
    torch.testing.assert_close(multiplied, expected, atol=1e-4, rtol=1e-4)
    assert len(streamed) == (0 if 1 < n <= multiplication.TRANSPOSED_N and m <= 1024 else len(dims) - 1)
    linear(x, W).square().sum().backward()
    gradients = torch.autograd.grad(expected.square().sum(), [W, *x])
    for found, wanted in zip([W.grad, *(view.grad for view in x)], gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-2, rtol=1e-3)


def test_streamed_products_keep_what_is_not_finite_in_its_row(streamed: list[int]) -> None:
    x = [torch.randn(40, 6) for _ in range(3)]
    x[1][3, 2], x[2][5, 0] = float("nan"), float("inf")
    found = multiplication._product(torch.randn(16, 18), x)
    assert streamed
    assert [i for i in range(40) if not found[i].isfinite().all()] == [3, 5]
    assert found[3].isnan().all()
    assert not found[5].isfinite().any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: [torch.randn(40, 6, dtype=torch.float64) for _ in range(3)],
        lambda: [torch.randn(6, 40).T for _ in range(3)],
        lambda: [torch.randn(40, 6), torch.randn(40, 12)[:, ::2], torch.randn(40, 6)],
    ],
    ids=["float64", "transposed", "strided"],
)
def test_what_is_not_streamed(make: Callable[[], list[Tensor]], streamed: list[int]) -> None:
    x = make()
    W = torch.randn(16, 18).to(x[0])
    torch.testing.assert_close(multiplication._product(W, x), torch.cat(x, 1) @ W.T)
    assert not streamed


@pytest.mark.usefixtures("streamed")
def test_without_the_convolution_or_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    x = [torch.randn(40, 6) for _ in range(3)]
    assert multiplication._streamable([torch.randn(16, 18), *x])
    with monkeypatch.context() as switched_off:
        switched_off.setattr(torch.backends.mkldnn, "enabled", False)
        assert not multiplication._streamable([torch.randn(16, 18), *x])
    monkeypatch.setattr(multiplication, "_convolutions", lambda: None)
    assert not multiplication._streamable([torch.randn(16, 18), *x])


@pytest.mark.usefixtures("streamed")
def test_a_convolution_with_other_arguments_or_on_another_processor_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as other:
        other.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        assert find_convolutions() is None
    assert find_convolutions() is not None
    monkeypatch.setattr(multiplication, "CONVOLUTION_ARGUMENTS", ["X W", "other X W"])
    assert find_convolutions() is None


# ---------------------------------------------------------------------- column blocks


@pytest.fixture(params=["joined", "cut"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Join the views always, or never."""
    monkeypatch.setattr(multiplication, "PIECE_ELEMENTS", 2**60 if request.param == "joined" else 0)
    return str(request.param)


@pytest.mark.parametrize("rows_outermost", [False, True])
@pytest.mark.parametrize("t", [1, 3, 4, 7, 11, 12])
@pytest.mark.parametrize("dims", [[11], [4, 4, 3], [1, 1, 9], [3, 1, 5, 2]], ids=lambda dims: "-".join(map(str, dims)))
@pytest.mark.parametrize("lead", [(5,), (2, 3), (), (0,)])
def test_block_products(way: str, lead: tuple[int, ...], dims: list[int], t: int, rows_outermost: bool) -> None:
    x = [torch.randn(*lead, width, dtype=torch.float64) for width in dims]
    q = -(-11 // t)
    blocks = torch.randn(q, 2, t, dtype=torch.float64)
    assert cutting_pays(x, t, (blocks,)) == (way == "cut")
    found = block_products(x, blocks, rows_outermost)
    rows = torch.cat(x, -1).reshape(-1, 11)
    assert found.shape == (q, len(rows), 2)
    for b in range(q):
        part = rows[:, b * t : (b + 1) * t]
        torch.testing.assert_close(found[b], part @ blocks[b, :, : part.shape[1]].T)
    assert found.transpose(0, 1).is_contiguous() or not rows_outermost


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("rows_outermost", [False, True])
@pytest.mark.parametrize("needed", [(True, True, True), (False, True, True), (True, False, True), (False, False, True)])
def test_block_products_derivatives(needed: tuple[bool, ...], rows_outermost: bool) -> None:
    x = [
        torch.randn(3, width, dtype=torch.float64, requires_grad=need)
        for width, need in zip((4, 5), needed, strict=False)
    ]
    blocks = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=needed[2])

    def products(blocks: Tensor, *x: Tensor) -> Tensor:
        return block_products(x, blocks, rows_outermost)

    assert torch.autograd.gradcheck(products, (blocks, *x), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(products, (blocks, *x))


@pytest.mark.usefixtures("way")
def test_block_products_of_noncontiguous_views_and_under_transforms() -> None:
    base = torch.randn(7, 6)
    x = [base.T[:, :3], base.T[:, 3:4].expand(6, 5), torch.randn(6, 8)[:, ::2]]
    blocks = torch.randn(3, 2, 4)
    expected = torch.stack([part @ block.T for part, block in zip(torch.cat(x, 1).split(4, 1), blocks, strict=True)])
    torch.testing.assert_close(block_products(x, blocks), expected)
    many = torch.randn(2, 3, 2, 4)
    found = torch.vmap(lambda blocks: block_products(x, blocks))(many)
    torch.testing.assert_close(found, torch.stack([block_products(x, blocks) for blocks in many]))
    empty = block_products([view.to("meta") for view in x], blocks.to("meta"), rows_outermost=True)
    assert empty.shape == (3, 6, 2)


def test_cutting_pays_for_many_rows() -> None:
    blocks = torch.randn(4, 8, 250)
    assert cutting_pays([torch.randn(1000, 500) for _ in range(2)], 250, (blocks,))
    assert not cutting_pays([torch.randn(100, 500) for _ in range(2)], 250, (blocks,))
    assert not cutting_pays([torch.randn(1000, 1) for _ in range(1000)], 250, (blocks,))
    assert not cutting_pays([torch.randn(1000, 500, device="meta") for _ in range(2)], 250, (blocks.to("meta"),))


def test_on_a_gpu_joining_saves_launches() -> None:
    W = torch.randn(4, 12).as_subclass(OnAGPU)
    x = [torch.empty(8, 4) for _ in range(3)]
    assert _joining_pays(x, W, 8, 2 * LAUNCHED_VIEW)
    assert not _joining_pays(x, W, 8, 2 * LAUNCHED_VIEW + 1)
    assert _joining_pays([*x[1:], x[0].requires_grad_()], W, 8, 6 * LAUNCHED_VIEW)
    assert not _joining_pays([*x[1:], x[0]], W, 8, 6 * LAUNCHED_VIEW + 1)
