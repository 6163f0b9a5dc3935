"""Values against loops over the papers' formulas, parameter counts against the original layer lists, initial power."""

from __future__ import annotations

import math
from itertools import combinations, permutations
from typing import Any

import fusionkit
import pytest
import torch
from oracles import ORACLES

from fusionkit_bilinear.functions import RANK_BY_RANK, contract, moments, pooled_products, power_normalized, split_point
from fusionkit_bilinear.plugin import OPERATORS

SMALL: dict[str, dict[str, Any]] = {
    "mlb": {"mm_dim": 5},
    "mfb": {"mm_dim": 4, "factor": 3},
    "mfh": {"mm_dim": 3, "factor": 2},
    "mutan": {"mm_dim": 4, "rank": 3},
    "tucker": {"mm_dim": 3},
    "block_tucker": {"mm_dim": 5, "chunks": 3},
    "block": {"mm_dim": 5, "chunks": 2, "rank": 3},
    "mcb": {"mm_dim": 7, "seed": 1},
}
#: Options beside the defaults, each on its own.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in OPERATORS),
    ("tensor_fusion", {"bias": True}),
    ("lowrank_tensor_fusion", {"rank": 1}),
    ("mlb", {"activ_input": "relu", "activ_output": "relu"}),
    ("mlb", {"normalize": True, "activ_input": None}),
    ("mfb", {"normalize": False, "activ_input": "relu", "activ_output": "sigmoid"}),
    ("mfh", {"normalize": False, "activ_input": "relu", "order": 3}),
    ("mfh", {"order": 1, "activ_input": "gelu", "activ_output": "silu"}),
    ("mutan", {"normalize": True}),
    ("tucker", {"normalize": True}),
    ("block_tucker", {"pos_norm": "after_cat"}),
    ("block_tucker", {"pos_norm": None}),
    ("block", {"pos_norm": "after_cat", "chunks": 5}),
    ("block", {"pos_norm": None, "chunks": 1}),
    ("mcb", {"normalize": False, "activ_output": "relu", "mm_dim": 8}),
    ("hadamard_projection", {"bias": True}),
]
DIMS = [[4], [4, 3], [3, 1, 2], [2, 3, 2, 2]]


def built(name: str, dims: list[int], **options: Any) -> Any:
    op: Any = fusionkit.create(name, dims=dims, dtype="float64", **{**SMALL.get(name, {}), **options})
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_().mul_(0.7)
    return op


def agrees(op: Any) -> None:
    views = [torch.randn(2, 3, width, dtype=torch.float64) for width in op.dims]
    out = op(views)
    assert out.shape == (2, 3, op.n)
    for at in [(0, 0), (1, 2)]:
        expected = ORACLES[op.name](op, [view[at].tolist() for view in views])
        # A root makes 1e-8 of the rounding of the FFT where a sketch is zero.
        atol = 1e-7 if op.name == "mcb" and op.normalize else 1e-10
        torch.testing.assert_close(out[at], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=atol)


@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_formula(name: str, options: dict[str, Any], dims: list[int]) -> None:
    torch.manual_seed(0)
    agrees(built(name, dims, n=3, **options))


@pytest.mark.parametrize("form", ["vector", "scalar"])
@pytest.mark.parametrize("dims", [[4], [3, 2], [3, 3, 2], [3, 3, 3, 3]], ids=str)
def test_forms(form: str, dims: list[int]) -> None:
    torch.manual_seed(0)
    op = built("multiplicative_interaction", dims, form=form)
    assert op.n == dims[0]
    agrees(op)


def linear(width: int, n: int, bias: bool = True) -> int:
    """Parameters of a linear layer."""
    return width * n + (n if bias else 0)


def bilinear(a: int, b: int, n: int, bias: bool = True) -> int:
    """Parameters of a bilinear layer."""
    return a * b * n + (n if bias else 0)


A, B, N = 216, 240, 10
#: For two views of widths A and B: name, options besides the defaults, the layers of the original implementation.
COUNTS: list[tuple[str, dict[str, Any], int]] = [
    # The layer behind the outer product; the original has a bias beside the ones.
    ("tensor_fusion", {}, linear((A + 1) * (B + 1), N, bias=False)),
    ("tensor_fusion", {"bias": True}, linear((A + 1) * (B + 1), N)),
    # Factors (rank, n_i + 1, n), the weights of the rank, the bias.
    ("lowrank_tensor_fusion", {}, 4 * (A + 1) * N + 4 * (B + 1) * N + 4 + N),
    # W, U, V, b.
    ("multiplicative_interaction", {}, bilinear(A, B, N, bias=False) + linear(A, N, bias=False) + linear(B, N)),
    ("mlb", {}, linear(A, 1200) + linear(B, 1200) + linear(1200, N)),
    ("mfb", {}, linear(A, 1200 * 2) + linear(B, 1200 * 2) + linear(1200, N)),
    ("mfb", {"mm_dim": 1000, "factor": 5}, linear(A, 5000) + linear(B, 5000) + linear(1000, N)),
    ("mfh", {}, 2 * linear(A, 1200 * 2) + 2 * linear(B, 1200 * 2) + linear(1200 * 2, N)),
    ("mutan", {}, linear(A, 1600) + linear(B, 1600) + 2 * linear(1600, 1600 * 15) + linear(1600, N)),
    ("tucker", {}, linear(A, 235) + linear(B, 235) + bilinear(235, 235, 235) + linear(235, N)),
    # The default of the original class; 16 GB.
    ("tucker", {"mm_dim": 1600}, linear(A, 1600) + linear(B, 1600) + bilinear(1600, 1600, 1600) + linear(1600, N)),
    ("block_tucker", {}, linear(A, 1600) + linear(B, 1600) + 20 * bilinear(80, 80, 80) + linear(1600, N)),
    ("block", {}, linear(A, 1600) + linear(B, 1600) + 2 * 20 * linear(80, 80 * 15) + linear(1600, N)),
    # 18 chunks: 17 of 89 and one of 87.
    (
        "block",
        {"chunks": 18},
        linear(A, 1600) + linear(B, 1600) + 2 * (17 * linear(89, 89 * 15) + linear(87, 87 * 15)) + linear(1600, N),
    ),
    ("mcb", {}, linear(16000, N)),
    # P_1, P_2, U_1, U_2.
    ("hadamard_projection", {}, 2 * linear(A, N, bias=False) + 2 * linear(B, N, bias=False)),
]


@pytest.mark.parametrize(("name", "options", "count"), COUNTS, ids=str)
def test_counts(name: str, options: dict[str, Any], count: int) -> None:
    op = fusionkit.create(name, dims=[A, B], n=N, device="meta", **options)
    assert op.calculate_l() == count
    assert sum(parameter.numel() for parameter in op.parameters()) == count


def test_every_operator_is_counted() -> None:
    assert {name for name, _, _ in COUNTS} == set(OPERATORS) == set(ORACLES)


@pytest.mark.parametrize(
    ("name", "options", "widths"),
    [
        ("tucker", {}, {1: 235, 2: 235, 3: 60, 6: 10, 22: 2, 23: 1, 5000: 1}),
        ("block_tucker", {"chunks": 1}, {1: 1600, 2: 1600, 3: 56, 6: 10, 5000: 1}),
        ("block_tucker", {"chunks": 3}, {1: 1600, 2: 1600, 3: 3 * 42, 6: 3 * 8, 5000: 3}),
        ("block_tucker", {}, {1: 1600, 2: 1600, 3: 20 * 26, 6: 20 * 6, 5000: 20}),
    ],
    ids=str,
)
def test_mm_dim_by_default(name: str, options: dict[str, Any], widths: dict[int, int]) -> None:
    most = 20 * 80**3 if name == "block_tucker" else 235**3
    for k, width in widths.items():
        op: Any = fusionkit.create(name, dims=[3] * k, n=2, device="meta", **options)
        assert op.mm_dim == width
        chunks = getattr(op, "chunks", 1)
        cores = chunks * (width // chunks) ** (k + 1)
        if k > 2:
            assert op.calculate_l() == 4 * k * width + cores + width + (width + 1) * 2
            assert cores <= most < chunks * (width // chunks + 1) ** (k + 1)


@pytest.mark.parametrize("name", ["tucker", "block_tucker"])
def test_mm_dim_by_default_elsewhere(name: str) -> None:
    torch.manual_seed(0)
    op: Any = fusionkit.create(name, dims=[3] * 12, n=2)
    same: Any = fusionkit.create(**op.to_config())
    assert same.mm_dim == op.mm_dim
    # Three views alone would get another width.
    less: Any = op.restrict([7, 0, 3])
    assert less.mm_dim == op.mm_dim != fusionkit.create(name, dims=[3] * 3, n=2, device="meta").mm_dim
    again: Any = fusionkit.create(**less.to_config())
    again.load_state_dict(less.state_dict())
    x = [torch.randn(4, 3) for _ in range(12)]
    mask = torch.zeros(4, 12, dtype=torch.bool)
    mask[:, [7, 0, 3]] = True
    torch.testing.assert_close(again([x[7], x[0], x[3]]), op(x, mask=mask))
    unknown: Any = fusionkit.create(name)
    assert (unknown.mm_dim, unknown.calculate_n([4, 4])) == (None, 4)
    assert fusionkit.create(name, dims=[3] * 12, n=2, mm_dim=20, device="meta").mm_dim == 20


@pytest.mark.parametrize("dims", [[6], [8, 5], [6, 6, 6], [4] * 6], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_initial_power(name: str, dims: list[int]) -> None:
    torch.manual_seed(0)
    sizes: dict[str, dict[str, Any]] = {
        "mlb": {"mm_dim": 64},
        "mfb": {"mm_dim": 64},
        "mfh": {"mm_dim": 64},
        "mutan": {"mm_dim": 16},
    }
    sizes |= {"tucker": {"mm_dim": 4}, "block_tucker": {"mm_dim": 12, "chunks": 3}, "mcb": {"mm_dim": 64}}
    sizes |= {"block": {"mm_dim": 12, "chunks": 3}}
    op = fusionkit.create(name, dims=dims, n=16, **sizes.get(name, {}))
    powers = []
    for seed in range(20):
        op.reset_parameters(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            powers.append(op([torch.randn(128, width) for width in dims]).square().mean().item())
    assert 0.5 < sum(powers) / len(powers) < 2


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pooled_rank_by_rank(k: int) -> None:
    torch.manual_seed(0)
    n, rank = RANK_BY_RANK, 3
    parts = [tuple(torch.randn(*shape, dtype=torch.float64) for shape in ((rank * n, 4), (rank * n,), (2, 3, 4)))] * k
    terms = math.prod((x @ W.T + c for W, c, x in parts), start=torch.ones(1))
    expected = terms.unflatten(-1, (rank, n)).sum(-2)
    torch.testing.assert_close(pooled_products(parts, rank), expected)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(pooled_products(parts, rank), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [2, 7, 60])
def test_mutan_in_either_order(rows: int) -> None:
    torch.manual_seed(0)
    op = built("mutan", [3, 5], n=2, mm_dim=8)
    views = [torch.randn(rows, width, dtype=torch.float64, requires_grad=True) for width in (3, 5)]
    # Few rows: P_i x_i first; many: M_i P_i first.
    assert [op._affine(op.inputs[i], op.merges[i], views[i])[2] is views[i] for i in range(2)] == [rows > 4, rows > 13]
    expected = [ORACLES["mutan"](op, [view[row].tolist() for view in views]) for row in (0, rows - 1)]
    torch.testing.assert_close(op(views)[[0, -1]], torch.tensor(expected, dtype=torch.float64))
    leaves = [*views, *op.parameters()]
    found = torch.autograd.grad(op(views).square().sum(), leaves)
    apart = sum(op([view[row : row + 1] for view in views]).square().sum() for row in range(rows))
    for one, other in zip(found, torch.autograd.grad(apart, leaves), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", OPERATORS)
def test_without_gradient(name: str) -> None:
    # The product may take the place of a factor then, not of a view.
    torch.manual_seed(0)
    op = built(name, [4, 3, 4], n=3)
    views = [torch.randn(5, width, dtype=torch.float64) for width in op.dims]
    before = [view.clone() for view in views]
    with torch.no_grad():
        torch.testing.assert_close(op(views), op(views))
        found = op(views)
    torch.testing.assert_close(found, op(views))
    assert all(torch.equal(view, copy) for view, copy in zip(views, before, strict=True))


def test_power_normalized() -> None:
    z = torch.tensor([[4.0, -9.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    out = power_normalized(z)
    root = torch.tensor([2.0, -3.0, 0.0, 1.0]) / math.sqrt(14)
    torch.testing.assert_close(out, torch.stack([root, torch.zeros(4)]))
    out.sum().backward()
    assert z.grad is not None
    # Where the usual sqrt(relu(z)) - sqrt(relu(-z)) gives NaN.
    assert z.grad.isfinite().all()
    assert z.grad[0, 2] == 0


def test_power_normalized_in_half_precision() -> None:
    z = torch.full((1, 64), 6e4, dtype=torch.float16)
    torch.testing.assert_close(power_normalized(z), torch.full((1, 64), 0.125, dtype=torch.float16))


NORMALIZED = [
    ("mlb", {"normalize": True}),
    ("mlb", {"normalize": True, "activ_input": None}),
    ("mfb", {}),
    ("mfh", {}),
    ("mutan", {"normalize": True}),
    ("mutan", {"normalize": True, "mm_dim": RANK_BY_RANK}),
    ("tucker", {"normalize": True}),
    ("block_tucker", {}),
    ("block_tucker", {"pos_norm": "after_cat"}),
    ("block", {}),
    ("block", {"pos_norm": "after_cat"}),
    ("mcb", {}),
]


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 3e3), (torch.bfloat16, 1e30)])
@pytest.mark.parametrize(("name", "options"), NORMALIZED, ids=str)
def test_products_that_are_normalized_do_not_overflow_in_half_precision(
    name: str, options: dict[str, Any], dtype: torch.dtype, scale: float
) -> None:
    torch.manual_seed(0)
    op = fusionkit.create(name, dims=[4, 6, 5], n=7, **SMALL[name] | options).to(dtype).eval()
    views = [(torch.randn(8, width, dtype=torch.float64) * scale).to(dtype) for width in op.dims]
    with torch.no_grad():
        found = op(views).double()
        wanted = op.double()([view.double() for view in views])
    assert (found - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *VARIANTS,
        ("tensor_fusion", {"parameter_fabrication": "hashed"}),
        ("lowrank_tensor_fusion", {"parameter_fabrication": "lowrank"}),
        ("multiplicative_interaction", {"parameter_fabrication": "hashed"}),
        ("multiplicative_interaction", {"form": "vector", "dims": [4, 4, 4]}),
        ("multiplicative_interaction", {"form": "scalar", "dims": [4, 4, 4]}),
        ("tucker", {"core_fabrication": "hashed"}),
    ],
    ids=str,
)
def test_restrict_is_the_operator_with_the_other_views_absent(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op = built(name, **{"dims": [2, 3, 4], "n": 4, "preprocess": ["linear"], **options})
    x = [torch.randn(6, width, dtype=torch.float64) for width in op.dims]
    ordered = options.get("form") in ("vector", "scalar")  # Their views have different parts.
    for k in (1, 2, 3):
        for kept in (combinations if ordered else permutations)(range(3), k):
            less = op.restrict(kept)
            mask = torch.tensor([i in kept for i in range(3)]).expand(6, 3)
            torch.testing.assert_close(less([x[i] for i in kept]), op(x, mask=mask), rtol=1e-6, atol=1e-6)
            fusionkit.create(**less.to_config()).load_state_dict(less.state_dict())


def test_gradients_of_large_views_in_float32() -> None:
    torch.manual_seed(0)
    op = fusionkit.create("mfh", dims=[4, 6, 5], n=7, mm_dim=4)
    x = [torch.randn(8, width) * 1e4 for width in op.dims]
    found, wanted = (
        torch.autograd.grad(op.to(dtype)(views).square().sum(), views)
        for dtype in (torch.float32, torch.float64)
        for views in [[view.to(dtype).requires_grad_() for view in x]]
    )
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize("name", [None, "relu", "tanh", "gelu"])
def test_moments(name: str | None) -> None:
    torch.manual_seed(0)
    u = torch.randn(400_000, dtype=torch.float64) * 0.6 + 0.8
    f: Any = {None: lambda u: u, "relu": torch.relu, "tanh": torch.tanh, "gelu": torch.nn.functional.gelu}[name]
    mean, square = moments(name, 0.8, 0.6)
    assert mean == pytest.approx(f(u).mean().item(), abs=5e-3)
    assert square == pytest.approx(f(u).square().mean().item(), abs=5e-3)


@pytest.mark.parametrize(
    ("n", "dims", "s"),
    [(64, (33, 33, 33), 1), (10, (217, 241), 1), (1000, (3, 3), 0), (2, (50, 50, 50, 50), 2), (5, (7,), 0)],
)
def test_contract(n: int, dims: tuple[int, ...], s: int) -> None:
    torch.manual_seed(0)
    assert split_point(n, dims) == s
    small = [min(width, 5) for width in dims]
    W = torch.randn(min(n, 6), math.prod(small), dtype=torch.float64)
    x = [torch.randn(4, width, dtype=torch.float64) for width in small]
    letters = "abcd"[: len(small)]
    spec = f"o{letters}," + ",".join(f"m{letter}" for letter in letters) + "->mo"
    torch.testing.assert_close(contract(W, x), torch.einsum(spec, W.view(-1, *small), *x))


@pytest.mark.parametrize("dims", [(5, 4), (3, 4, 5), (4,)], ids=str)
def test_contract_in_blocks(dims: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    W, bias = torch.randn(7, math.prod(dims), dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    x = [torch.randn(6, width, dtype=torch.float64) for width in dims]
    expected = contract(W, x, bias)
    monkeypatch.setattr("fusionkit_bilinear.functions.HELD", 0)
    # Blocks of one row, of some, and of all.
    for block in (1, 6 * dims[0] * 3, 10**6):
        monkeypatch.setattr("fusionkit_bilinear.functions.BLOCK", block)
        with torch.no_grad():
            torch.testing.assert_close(contract(W, x, bias), expected)
            assert contract(W, [view[:0] for view in x], bias).shape == (0, 7)


def test_sketches_follow_the_seed() -> None:
    made = [fusionkit.create("mcb", dims=[30, 30], n=2, mm_dim=50, seed=seed) for seed in (0, 0, 1)]
    one, same, other = made
    for a, b, c in zip(one.buffers(), same.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    first, second = (one.get_submodule(f"sketches.{i}") for i in range(2))
    assert not torch.equal(first.get_buffer("h"), second.get_buffer("h"))
    assert set(first.get_buffer("s").tolist()) == {-1.0, 1.0}
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.get_buffer("sketches.0.h"), first.get_buffer("h"))


def test_frozen_parts_of_several_matrices_differ() -> None:
    made = {"name": "random_matrix_adaption", "seed": 5}
    op: Any = fusionkit.create("mlb", dims=[6, 6], n=2, mm_dim=4, parameter_fabrication=made)
    first, second = (module.fabrication for module in op.inputs)
    assert (first.seed, second.seed) == (5, 6)
    assert not torch.equal(first.A, second.A)


def test_dropout_is_declared_by_the_object() -> None:
    still, loose = (fusionkit.create("mlb", dims=[4, 4], n=2, mm_dim=3, dropout_input=p) for p in (0.0, 0.5))
    assert not still.traits.stochastic
    assert loose.traits.stochastic
    assert loose.traits.train_eval_differ
    assert not type(loose).traits.stochastic


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *(
            (name, option)
            for name in ("mlb", "mfh")
            for option in ("dropout_input", "dropout_pre_lin", "dropout_output")
        ),
        *(("mfb", option) for option in ("dropout_input", "dropout_pre_norm", "dropout_output")),
        *((name, "dropout_input") for name in ("mutan", "tucker", "block", "block_tucker")),
        *((name, "dropout_pre_lin") for name in ("mutan", "tucker", "block", "block_tucker")),
        *((name, "dropout_output") for name in ("mutan", "tucker", "block", "block_tucker", "mcb")),
    ],
)
def test_dropout(name: str, option: str) -> None:
    torch.manual_seed(0)
    op = built(name, [4, 4], n=3, **{option: 0.5})
    views = [torch.randn(16, 4, dtype=torch.float64) for _ in range(2)]
    assert not torch.equal(op.train()(views), op(views))
    assert torch.equal(op.eval()(views), op(views))
