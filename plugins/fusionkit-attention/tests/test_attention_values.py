"""Values against loops over the formulas, parameter counts, initial values, explanations, restrictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import fusionkit
import pytest
import torch
from fusionkit.contract.needs import clean_dynamo
from oracles import ORACLES, balance_loss
from torch import Tensor

from fusionkit_attention.bench import FIXED_N
from fusionkit_attention.plugin import OPERATORS

#: Sizes of the tokens, for the loops of the oracles.
SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"width": 8, "heads": 2},
    "perceiver": {"width": 8, "heads": 2, "latents": 3},
}
#: Options beside the defaults, each on its own.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("gated", {}),
    ("gated", {"gate": "softmax"}),
    ("attention_pool", {"hidden": 3}),
    ("attention_pool", {"tau": 0.5}),
    ("attention_pool", {"scores": "gated", "hidden": 2}),
    ("attention_pool", {"scores": "joint", "tau": 2.0}),
    ("attention_pool", {"scores": "feature", "tau": 2.0}),
    ("film", {}),
    ("adaptation_gate", {}),
    ("adaptation_gate", {"beta": 0.3}),
    ("adaptation_gate", {"beta": 50.0}),
    ("squeeze_excite", {}),
    ("squeeze_excite", {"hidden": 3}),
    ("mixture_of_experts", {}),
    ("mixture_of_experts", {"experts": 3, "top_k": 2}),
    ("mixture_of_experts", {"experts": 2, "top_k": 2, "balance": 0}),
    ("mixture_of_experts", {"experts": "views"}),
    ("embracenet", {}),
    ("residual_gate", {}),
    ("residual_gate", {"hidden": 2}),
    ("transformer", {}),
    ("transformer", {"pool": "mean"}),
    ("transformer", {"pool": "concat", "depth": 1, "ff_width": 5}),
    ("transformer", {"depth": 1, "heads": 8}),
    ("transformer", {"depth": 3, "heads": 1, "width": 4}),
    ("perceiver", {}),
    ("perceiver", {"pool": "flatten", "depth": 0}),
    ("perceiver", {"depth": 2, "ff_width": 5, "heads": 4}),
    ("perceiver", {"latents": 1, "pool": "flatten"}),
]
DIMS = [[4], [4, 3], [3, 1, 2], [2, 3, 2, 1, 4, 2]]
#: Those of VARIANTS at every number of views, and what needs several.
CASES = [
    *((name, options, dims) for name, options in VARIANTS for dims in DIMS),
    ("gated", {"tied": True}, [4, 3]),
    ("film", {"main": 1}, [4, 3]),
    ("film", {"main": 1}, [3, 1, 2]),
    ("film", {"main": 5}, [2, 3, 2, 1, 4, 2]),
    ("adaptation_gate", {"main": 1}, [4, 3]),
    ("adaptation_gate", {"main": 2}, [3, 1, 2]),
    ("mixture_of_experts", {"experts": "views", "top_k": 2}, [3, 1, 2]),
    ("mixture_of_experts", {"experts": "views", "top_k": 2}, [2, 3, 2, 1, 4, 2]),
]


def built(name: str, dims: list[int], **options: Any) -> Any:
    """Return the operator in float64 and evaluation mode, with random parameters."""
    width: dict[str, Any] = {} if name in FIXED_N else {"n": 4}
    op: Any = fusionkit.create(name, dims=dims, dtype="float64", **{**width, **SMALL.get(name, {}), **options})
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_().mul_(0.7)
    return op.eval()


def views_of(op: Any, *lead: int) -> list[Tensor]:
    return [torch.randn(*lead, width, dtype=torch.float64) for width in op.dims]


def agrees(said: dict[str, Tensor], op: Any, x: Sequence[Tensor], at: tuple[int, ...], present: list[bool]) -> None:
    row = [view[at].tolist() if there else [0.0] * view.shape[-1] for view, there in zip(x, present, strict=True)]
    wanted = ORACLES[op.name](op, row, present)
    assert said.keys() - {"loss"} == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(said[key][at], torch.tensor(value, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "options", "dims"), CASES, ids=str)
def test_formula(name: str, options: dict[str, Any], dims: list[int]) -> None:
    torch.manual_seed(0)
    op = built(name, dims, **options)
    x = views_of(op, 2, 3)
    said = op.explain(x)
    assert said["output"].shape == (2, 3, op.n)
    assert torch.equal(said["output"], op(x))
    for at in ((0, 0), (1, 2)):
        agrees(said, op, x, at, [True] * len(dims))


@pytest.mark.parametrize(("name", "options", "dims"), CASES, ids=str)
def test_formula_with_a_mask(name: str, options: dict[str, Any], dims: list[int]) -> None:
    torch.manual_seed(0)
    op, k = built(name, dims, **options), len(dims)
    rows = [[True] * k, [False] * k, *([i == j for i in range(k)] for j in range(k))]
    mask = torch.tensor([*rows, *(torch.rand(4, k) < 0.5).tolist()])
    x = views_of(op, len(mask))
    for i, view in enumerate(x):
        view[~mask[:, i]] = torch.nan
    said = op.explain(x, mask=mask)
    assert torch.equal(said["output"], op(x, mask=mask))
    for row, present in enumerate(mask.tolist()):
        agrees(said, op, x, (row,), present)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("gated", "attention_pool", "adaptation_gate", "squeeze_excite", "embracenet")),
        ("mixture_of_experts", {"experts": "views"}),
    ],
    ids=str,
)
def test_a_row_without_views_is_zero(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op = built(name, [4, 3, 2], **options)
    out = op(views_of(op, 1), mask=torch.zeros(1, 3, dtype=torch.bool))
    assert torch.equal(out, torch.zeros_like(out))


def test_a_row_without_views_depends_on_the_parameters() -> None:
    torch.manual_seed(0)
    empty = torch.zeros(1, 3, dtype=torch.bool)
    film = built("film", [4, 3, 2])
    torch.testing.assert_close(film(views_of(film, 1), mask=empty), film.g0[None, 4:])
    gate = built("residual_gate", [4, 3, 2])
    inner = torch.nn.functional.gelu(gate.branch[0].bias)
    wanted = gate.output[0].weight @ inner + gate.output[0].bias
    torch.testing.assert_close(gate(views_of(gate, 1), mask=empty), wanted[None])


def test_adaptation_gate_without_its_main_view_is_zero() -> None:
    torch.manual_seed(0)
    op = built("adaptation_gate", [4, 3, 2], main=1)
    out = op(views_of(op, 2), mask=torch.tensor([[True, False, True], [False, False, True]]))
    assert torch.equal(out, torch.zeros_like(out))


# ------------------------------------------------------------------ sizes

#: Parameters of the blocks of attention of width 64 and their feed-forward networks of width 128, and of a layer.
BLOCK = 4 * 64**2 + 3 * 64 + 2 * 64 * 128 + 128 + 64
LAYER = BLOCK + 4 * 64
Count = Callable[[int, int, int, int], int]
#: name, options, l of k views of which the first has the width m, D and n.
COUNTS: list[tuple[str, dict[str, Any], Count]] = [
    ("gated", {}, lambda k, m, D, n: (k + 1) * n * D),
    ("gated", {"gate": "softmax"}, lambda k, m, D, n: (k + 1) * n * D),
    ("attention_pool", {}, lambda k, m, D, n: n * (D + k) + min(n, 128) * (n + 2)),
    ("attention_pool", {"hidden": 5}, lambda k, m, D, n: n * (D + k) + 5 * (n + 2)),
    ("attention_pool", {"scores": "gated"}, lambda k, m, D, n: n * (D + k) + min(n, 128) * (2 * n + 3)),
    ("attention_pool", {"scores": "joint"}, lambda k, m, D, n: n * (D + k) + k * (D + 1)),
    ("attention_pool", {"scores": "feature"}, lambda k, m, D, n: n * (D + k) + n * n),
    ("film", {}, lambda k, m, D, n: n * (2 * D - m + 2)),
    ("adaptation_gate", {}, lambda k, m, D, n: m * ((k - 1) * (m + 1) + 2 * (D - m) + 1)),
    ("squeeze_excite", {}, lambda k, m, D, n: 2 * max(1, D // 2) * D + max(1, D // 2) + D),
    ("squeeze_excite", {"hidden": 7}, lambda k, m, D, n: 2 * 7 * D + 7 + D),
    (
        "residual_gate",
        {},
        lambda k, m, D, n: n * (D + k) + min(n, 128) * (n + 2) + min(n, 128) * (k * n + 1) + n * (min(n, 128) + 1),
    ),
    ("residual_gate", {"hidden": 5}, lambda k, m, D, n: n * (D + k) + 5 * (n + 2) + 5 * (k * n + 1) + n * (5 + 1)),
    ("embracenet", {}, lambda k, m, D, n: n * (D + k)),
    ("mixture_of_experts", {}, lambda k, m, D, n: 4 * (n + 1) * (D + 1)),
    ("mixture_of_experts", {"experts": 7, "top_k": 2}, lambda k, m, D, n: 7 * (n + 1) * (D + 1)),
    ("mixture_of_experts", {"experts": "views"}, lambda k, m, D, n: n * (D + k) + k * (D + 1)),
    ("transformer", {}, lambda k, m, D, n: 64 * (D + k) + 64 + 2 * LAYER + 128 + n * 65),
    ("transformer", {"pool": "mean"}, lambda k, m, D, n: 64 * (D + k) + 2 * LAYER + 128 + n * 65),
    (
        "transformer",
        {"pool": "concat", "depth": 5},
        lambda k, m, D, n: 64 * (D + k) + 5 * LAYER + 128 + n * (64 * k + 1),
    ),
    (
        "transformer",
        {"width": 12, "ff_width": 7, "depth": 1},
        lambda k, m, D, n: 12 * (D + k) + 12 + (4 * 144 + 36) + (2 * 12 * 7 + 7 + 12) + 48 + 24 + n * 13,
    ),
    ("perceiver", {}, lambda k, m, D, n: 64 * (D + k) + 8 * 64 + (BLOCK + 6 * 64) + LAYER + 128 + n * 65),
    (
        "perceiver",
        {"pool": "flatten", "depth": 0, "latents": 3},
        lambda k, m, D, n: 64 * (D + k) + 3 * 64 + (BLOCK + 6 * 64) + 128 + n * (3 * 64 + 1),
    ),
]


@pytest.mark.parametrize("n", [1, 64, 300])
@pytest.mark.parametrize("dims", [[1], [216], [216, 240], [76, 216, 64, 240, 47, 6]], ids=str)
@pytest.mark.parametrize(("name", "options", "count"), COUNTS, ids=lambda value: "l" if callable(value) else str(value))
def test_counts(name: str, options: dict[str, Any], count: Count, dims: list[int], n: int) -> None:
    width: dict[str, Any] = {} if name in FIXED_N else {"n": n}
    op = fusionkit.create(name, dims=dims, device="meta", **width, **options)
    l = count(len(dims), dims[0], sum(dims), n)
    assert op.calculate_l() == l
    assert sum(parameter.numel() for parameter in op.parameters()) == l
    assert op.calculate_n() == {"adaptation_gate": dims[0], "squeeze_excite": sum(dims)}.get(name, n)


def test_count_of_tied_gates() -> None:
    assert fusionkit.create("gated", dims=[216, 240], n=64, tied=True, device="meta").calculate_l() == 2 * 64 * 456


def test_every_operator_is_counted() -> None:
    assert {name for name, _, _ in COUNTS} == set(ORACLES) == set(OPERATORS) == {name for name, _ in VARIANTS}


#: name -> its options by default for views of widths 5 and 4, with n = 3 where it is free.
DEFAULTS: dict[str, dict[str, Any]] = {
    "gated": {"gate": "sigmoid", "tied": False},
    "attention_pool": {"scores": "plain", "hidden": 3, "tau": 1.0},
    "film": {"main": 0},
    "adaptation_gate": {"main": 0, "beta": 1.0},
    "squeeze_excite": {"hidden": 4},
    "mixture_of_experts": {"experts": 4, "top_k": None, "balance": 0.01},
    "embracenet": {"parameter_fabrication": None},
    "residual_gate": {"hidden": 3},
    "transformer": {"width": 64, "heads": 4, "depth": 2, "ff_width": 128, "pool": "cls"},
    "perceiver": {"latents": 8, "width": 64, "heads": 4, "depth": 1, "ff_width": 128, "pool": "mean"},
}


@pytest.mark.parametrize("name", OPERATORS)
def test_defaults(name: str) -> None:
    torch.manual_seed(0)
    width: dict[str, Any] = {} if name in FIXED_N else {"n": 3}
    by_default = fusionkit.create(name, dims=[5, 4], **width).eval()
    explicit = fusionkit.create(name, dims=[5, 4], **width, **DEFAULTS[name]).eval()
    explicit.load_state_dict(by_default.state_dict())
    x = [torch.randn(4, width) for width in (5, 4)]
    for key, value in by_default.explain(x).items():
        assert torch.equal(value, explicit.explain(x)[key])


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in FIXED_N])
def test_n_is_the_common_width(name: str) -> None:
    assert fusionkit.create(name, dims=[5, 5]).calculate_n() == 5
    with pytest.raises(fusionkit.DimsError, match="should get n, or views of equal width"):
        fusionkit.create(name, dims=[5, 4])


@pytest.mark.parametrize(
    ("name", "options"),
    [*VARIANTS, ("gated", {"tied": True}), ("film", {"main": 1}), ("adaptation_gate", {"main": 1})],
    ids=str,
)
def test_initial_values(name: str, options: dict[str, Any]) -> None:
    # Mean square 1 / fan-in but for the exceptions; learned tokens 1; vectors and biases 0.
    torch.manual_seed(0)
    dims = [300, 200] if options.get("tied") else [300, 200, 250]
    sizes: dict[str, Any] = {} if name in FIXED_N else {"n": 100}
    sizes = {**sizes, "width": 96} if name in SMALL else sizes
    sizes = {**sizes, "latents": 64} if name == "perceiver" else sizes
    op: Any = fusionkit.create(name, dims=dims, **{**options, **sizes})
    factors = {
        ("film", "changes"): 0.25,
        ("adaptation_gate", "inputs"): 0.5,
        ("residual_gate", "output"): 0.0,
        ("embracenet", "inputs"): 2.0,
    }
    seen = 0
    for path, parameter in op.named_parameters():
        seen += 1
        # Few entries scatter.
        part, scatter = path.partition(".")[0], 8 * (2 / parameter.numel()) ** 0.5
        square = float(parameter.detach().square().mean())
        if part == "norm_weights":
            assert (parameter == 1).all()
        elif part in ("cls", "latents"):
            assert abs(parameter.mean().item()) < 4 / math.sqrt(parameter.numel())
            assert square == pytest.approx(1, rel=scatter)
        elif parameter.ndim == 1 or part == "norm_biases":
            assert not parameter.any(), path
        else:
            wanted = factors.get((name, part), 1.0)
            assert parameter.shape[1] * square == pytest.approx(wanted, rel=scatter), path
    assert seen >= 2


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_shift_of_adaptation_gate_does_not_grow_with_the_views(k: int) -> None:
    torch.manual_seed(0)
    op: Any = fusionkit.create("adaptation_gate", dims=[64] * (k + 1), beta=1e9)
    x = [torch.randn(512, 64) for _ in range(k + 1)]
    with torch.no_grad():
        # relu of a normal number of variance 2 (two views) has the mean square 1, or of variance 1 one half.
        shift = (op(x) - x[0]).square().mean()
    assert 0.35 < float(shift) < 0.65


# ------------------------------------------------------------------ restriction


RESTRICTED: list[tuple[str, dict[str, Any]]] = [
    *VARIANTS,
    ("gated", {"tied": True, "dims": [3, 4]}),
    ("film", {"main": 2}),
    ("adaptation_gate", {"main": 1}),
    ("gated", {"parameter_fabrication": "hashed"}),
    ("gated", {"parameter_fabrication": "constant"}),
    ("gated", {"parameter_fabrication": "lowrank", "tied": True, "dims": [3, 4]}),
    ("attention_pool", {"parameter_fabrication": "random_matrix_adaption"}),
    ("attention_pool", {"parameter_fabrication": "hashed", "scores": "joint"}),
    ("film", {"parameter_fabrication": "hashed", "main": 1}),
    ("adaptation_gate", {"parameter_fabrication": "random_matrix_adaption", "main": 1}),
    ("squeeze_excite", {"parameter_fabrication": "hashed"}),
    ("mixture_of_experts", {"experts": "views", "top_k": 2}),
    ("mixture_of_experts", {"parameter_fabrication": "lowrank"}),
    ("mixture_of_experts", {"parameter_fabrication": "lowrank", "experts": "views"}),
    ("embracenet", {"parameter_fabrication": "lowrank"}),
    ("residual_gate", {"parameter_fabrication": "hashed"}),
    ("transformer", {"parameter_fabrication": "lowrank"}),
    ("transformer", {"parameter_fabrication": "lowrank", "pool": "concat"}),
    ("perceiver", {"parameter_fabrication": "lowrank"}),
]


@pytest.mark.parametrize(("name", "options"), RESTRICTED, ids=str)
def test_restrict_is_the_operator_with_the_other_views_absent(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op = built(name, **{"dims": [2, 3, 4], "preprocess": ["linear"], **options})
    x, k = views_of(op, 6), len(op.dims)
    for size in range(1, k + 1):
        for kept in permutations(range(k), size):
            main = getattr(op, "main", None)
            if main is not None and main not in kept:
                with pytest.raises(fusionkit.FusionError) as caught:
                    op.restrict(kept)
                assert str(caught.value) == f"views should contain the main view, {main}; found {list(kept)}."
                continue
            less = op.restrict(kept)
            wanted = op(x, mask=torch.tensor([i in kept for i in range(k)]).expand(6, k))
            if name == "squeeze_excite":
                parts = wanted.split(op.dims, -1)
                wanted = torch.cat([parts[i] for i in kept], -1)
            # In float32 somewhere: a frozen part.
            torch.testing.assert_close(less([x[i] for i in kept]), wanted, rtol=1e-6, atol=1e-6)
            assert less.dims == tuple(op.dims[i] for i in kept)
            fusionkit.create(**less.to_config()).load_state_dict(less.state_dict())


def test_restrict_leaves_the_operator_alone() -> None:
    torch.manual_seed(0)
    op = built("gated", [3, 4], tied=True)
    before = op.flat_w().clone()
    less = op.restrict([1, 0])
    with torch.no_grad():
        for parameter in less.parameters():
            parameter.zero_()
    assert torch.equal(op.flat_w(), before)


def test_restrict_concat_keeps_the_fabrication() -> None:
    op = built("transformer", [2, 3, 4], pool="concat", parameter_fabrication="lowrank")
    less: Any = op.restrict([2, 0])
    assert [module.dense for module in less.inputs] == [False, False]
    columns = op.output[0].weight.split(8, 1)
    assert torch.equal(less.output[0].weight, torch.cat([columns[2], columns[0]], 1))


# ------------------------------------------------------------------ single operators


@pytest.mark.parametrize(
    ("name", "options", "one"),
    [
        ("embracenet", {}, True),
        ("mixture_of_experts", {"experts": "views"}, True),
        ("transformer", {"pool": "mean"}, True),
        ("transformer", {"pool": "concat"}, True),
        ("transformer", {}, False),
        ("perceiver", {}, False),
    ],
    ids=str,
)
def test_sum_of_the_weights(name: str, options: dict[str, Any], one: bool) -> None:
    torch.manual_seed(0)
    op = built(name, [3, 2, 2], **options)
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    total = op.explain(views_of(op, 3), mask=mask)["weights"].sum(-1)
    assert total[1] == 0
    for row in (0, 2):
        assert total[row].item() == pytest.approx(1) if one else 0 < total[row].item() < 0.999


def test_tied_gates_add_up_to_one() -> None:
    torch.manual_seed(0)
    op = built("gated", [4, 3], tied=True)
    gates = op.explain(views_of(op, 5))["gates"]
    torch.testing.assert_close(gates.sum(-2), torch.ones(5, 4, dtype=torch.float64))
    mask = torch.tensor([[True, False], [False, True]])
    said = op.explain(views_of(op, 2), mask=mask)
    assert not said["gates"][~mask].any()
    assert said["gates"][mask].all()


@pytest.mark.parametrize("scores", ["plain", "gated", "joint", "feature"])
def test_a_low_temperature_picks_one_view(scores: str) -> None:
    torch.manual_seed(0)
    op = built("attention_pool", [4, 3, 2], scores=scores, tau=1e-4)
    weights = op.explain(views_of(op, 5))["gates" if scores == "feature" else "weights"]
    torch.testing.assert_close(weights.amax(1), torch.ones_like(weights.amax(1)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scores", ["joint", "feature"])
def test_infinite_scores_in_half_precision_give_no_nan(scores: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    op = built("attention_pool", [4, 4], scores=scores).to(dtype)
    with torch.no_grad():
        op.outer[0].weight.fill_(torch.finfo(dtype).max)
        for project in op.inputs:
            project.weight.fill_(0.25)
            project.bias.zero_()
    said = op.explain([torch.full((2, 4), 100.0, dtype=dtype)] * 2)
    assert said["output"].isfinite().all()
    torch.testing.assert_close(said["weights"], torch.full((2, 2), 0.5, dtype=dtype))


def test_residual_gate_starts_as_the_pool() -> None:
    torch.manual_seed(0)
    op: Any = fusionkit.create("residual_gate", dims=[4, 3], n=5)
    pool: Any = fusionkit.create("attention_pool", dims=[4, 3], n=5)
    pool.load_state_dict({name: op.state_dict()[name] for name in pool.state_dict()})
    x = [torch.randn(6, 4), torch.randn(6, 3)]
    torch.testing.assert_close(op(x), pool(x))


def test_squeeze_excite_starts_near_its_views() -> None:
    op: Any = fusionkit.create("squeeze_excite", dims=[4, 3])
    with torch.no_grad():
        op.excite[0].weight.zero_()
    x = [torch.randn(6, 4), torch.randn(6, 3)]
    assert torch.equal(op(x), torch.cat(x, -1))


def leaves(*x: Tensor) -> list[Tensor]:
    return [view.detach().clone().requires_grad_() for view in x]


def test_adaptation_gate_at_a_shift_of_zero() -> None:
    # H = 0: the factor is 1 around it, so y = x_0 + H and its derivatives are those of the sum.
    torch.manual_seed(0)
    op = built("adaptation_gate", [4, 3])
    with torch.no_grad():
        op.bias.zero_()
        op.gates[0].bias.fill_(100.0)
    x = leaves(torch.randn(5, 4, dtype=torch.float64), torch.zeros(5, 3, dtype=torch.float64))
    said = op.explain(x)
    assert torch.equal(said["output"], x[0])
    assert torch.equal(said["scale"], torch.ones(5, dtype=torch.float64))
    given = torch.randn(5, 4, dtype=torch.float64)
    found = torch.autograd.grad(said["output"], [*x, op.bias], given, create_graph=True)
    gate = torch.relu(op.gates[0]([x[0], x[1]]))
    wanted = [given, (given * gate) @ op.inputs[0].weight, given.sum(0)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    total = torch.stack([one.square().sum() for one in found]).sum()
    again = torch.autograd.grad(total, [*x, *op.parameters()], allow_unused=True)
    assert all(gradient.isfinite().all() for gradient in again if gradient is not None)


def test_adaptation_gate_at_zero_views() -> None:
    torch.manual_seed(0)
    op = built("adaptation_gate", [4, 3])
    with torch.no_grad():
        op.bias.zero_()
    x = leaves(torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64))
    said = op.explain(x)
    assert torch.equal(said["scale"], torch.ones(2, dtype=torch.float64))
    found = torch.autograd.grad(said["output"].sum(), [*x, *op.parameters()])
    assert all(gradient.isfinite().all() for gradient in found)


def test_gradient_of_a_short_shift_is_that_of_the_sum() -> None:
    torch.manual_seed(0)
    op, free = (built("adaptation_gate", [4, 3], beta=beta) for beta in (1.0, 1e12))
    free.load_state_dict(op.state_dict())
    with torch.no_grad():
        for one in (op, free):
            one.inputs[0].weight.mul_(1e-6)
            one.bias.mul_(1e-6)
    x = views_of(op, 5)
    for one, other in zip(gradients(op, x), gradients(free, x), strict=True):
        torch.testing.assert_close(one, other)


def gradients(op: Any, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    views = leaves(*x)
    return torch.autograd.grad(op(views).square().sum(), [*views, *op.parameters()])


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 3e3), (torch.bfloat16, 1e18)])
def test_shift_of_adaptation_gate_does_not_overflow_in_half_precision(dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    op = built("adaptation_gate", [4, 6, 5]).to(dtype)
    x = [(torch.randn(8, width, dtype=torch.float64) * scale).to(dtype) for width in op.dims]
    with torch.no_grad():
        found = op(x).double()
        wanted = op.double()([view.double() for view in x])
    assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_gates_stay_finite_where_scores_overflow_in_half_precision() -> None:
    op: Any = fusionkit.create("gated", dims=[2, 2], n=3, gate="softmax", dtype="float16")
    with torch.no_grad():
        op.gates[0].weight.fill_(1)
    x = [torch.full((1, 2), 4e4, dtype=torch.float16)] * 2
    torch.testing.assert_close(op.explain(x)["weights"], torch.full((1, 2), 0.5, dtype=torch.float16))


def test_norm_of_the_shift_is_bounded() -> None:
    torch.manual_seed(0)
    op = built("adaptation_gate", [4, 3, 2], beta=0.25)
    x = views_of(op, 64)
    shift = (op(x) - x[0]).norm(dim=-1)
    assert (shift <= 0.25 * x[0].norm(dim=-1) * (1 + 1e-12)).all()
    bounded = op.explain(x)["scale"] < 1
    assert bounded.any()
    torch.testing.assert_close(shift[bounded], 0.25 * x[0].norm(dim=-1)[bounded])


def test_top_k_of_views() -> None:
    torch.manual_seed(0)
    op = built("mixture_of_experts", [2, 3, 2, 2], experts="views", top_k=2)
    mask = torch.tensor([[True] * 4, [False] * 4, [True, False, False, False], [True, True, False, True]])
    g = op.explain(views_of(op, 4), mask=mask)["weights"]
    assert (g > 0).sum(-1).tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"experts": "views"}, {"experts": "views", "top_k": 2}], ids=str)
def test_balance_loss(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op = built("mixture_of_experts", [2, 3, 2], balance=0.3, **options)
    x = views_of(op, 2, 3)
    mask = torch.rand(2, 3, 3) < 0.6
    mask[0, 1] = False
    for given in (None, mask):
        loss = op.explain(x, mask=given)["loss"]
        there = (torch.ones_like(mask) if given is None else given).reshape(6, 3)
        columns = zip(x, there.split(1, -1), strict=True)
        zeroed = [torch.where(column, view.reshape(6, -1), 0.0) for view, column in columns]
        rows = [[view[i].tolist() for view in zeroed] for i in range(6)]
        assert loss.item() == pytest.approx(balance_loss(op, rows, there.tolist()), rel=1e-9)
        assert loss.shape == ()
        (gradient,) = torch.autograd.grad(loss, [(op.scores if "experts" in options else op.gate)[0].weight])
        assert gradient.any()


def test_balance_loss_is_least_where_experts_are_used_alike() -> None:
    op = built("mixture_of_experts", [2, 3], balance=0.3)
    x = views_of(op, 5)
    with torch.no_grad():
        for parameter in op.gate.parameters():
            parameter.zero_()
    assert op.explain(x)["loss"].item() == pytest.approx(0.3)
    assert op.explain([view[:0] for view in x])["loss"].item() == 0
    assert set(built("mixture_of_experts", [2, 3], balance=0).explain(x)) == {"output", "experts"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["transformer", "perceiver"])
def test_norms_do_not_overflow_in_half_precision(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    op = fusionkit.create(name, dims=[4, 6], n=7, **SMALL[name]).to(dtype).eval()
    views = [(torch.randn(8, width) * 8e3).to(dtype) for width in (4, 6)]
    with torch.no_grad():
        found = op(views).double()
        wanted = op.double()([view.double() for view in views])
    assert (found - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize("name", ["transformer", "perceiver"])
def test_tokens_of_a_row_attend_to_each_other_alone(name: str) -> None:
    torch.manual_seed(0)
    op = built(name, [3, 2])
    x = views_of(op, 4)
    apart = torch.stack([op([view[i] for view in x]) for i in range(4)])
    torch.testing.assert_close(op(x), apart)


# ------------------------------------------------------------------ compiled


COMPILED = [
    ("gated", {"tied": True, "dims": [4, 3]}),
    ("gated", {"gate": "softmax"}),
    *(("attention_pool", {"scores": scores}) for scores in ("gated", "joint", "feature")),
    *((name, {}) for name in OPERATORS if name not in ("gated", "attention_pool")),
    ("mixture_of_experts", {"experts": "views", "top_k": 2}),
    ("transformer", {"pool": "mean"}),
]


@pytest.mark.parametrize(("name", "options"), COMPILED, ids=str)
def test_compiled_and_exported_with_a_mask(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op = built(name, **{"dims": [4, 3, 2], **options})
    x, y = views_of(op, 5), views_of(op, 3)
    mask, other = (torch.rand(rows, len(x)) < 0.6 for rows in (5, 3))
    with clean_dynamo():
        compiled: Any = torch.compile(op, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x, mask=mask), op(x, mask=mask))
        explain: Any = torch.compile(op.explain, fullgraph=True, backend="eager")
        torch.testing.assert_close(explain(x, mask=mask), op.explain(x, mask=mask))
        rows = torch.export.Dim("rows", min=2, max=64)
        shapes = {"x": [{0: rows}] * len(x), "mask": {0: rows}}
        program: Any = torch.export.export(op, (x,), {"mask": mask}, dynamic_shapes=shapes).module()
        torch.testing.assert_close(program(y, mask=other), op(y, mask=other))


def test_gate_stays_finite_where_scores_overflow_in_half_precision() -> None:
    op: Any = fusionkit.create("mixture_of_experts", dims=[2, 2], n=3, dtype="float16")
    with torch.no_grad():
        op.gate[0].weight.fill_(3e3)
    said = op.explain([torch.full((1, 2), 10.0, dtype=torch.float16)] * 2)
    torch.testing.assert_close(said["experts"], torch.full((1, 4), 0.25, dtype=torch.float16))
    assert said["output"].isfinite().all()


def test_balance_loss_may_be_less_with_top_k() -> None:
    """An expert that is chosen in every row, but as the lesser one."""
    op: Any = fusionkit.create("mixture_of_experts", dims=[3], n=4, experts=3, top_k=2, balance=1.0)
    with torch.no_grad():
        op.gate[0].weight.copy_(torch.eye(3))
    loss = op.explain([torch.tensor([[0.0, 50.0, -1.0], [0.0, -1.0, 50.0]])])["loss"]
    # f = 1/2, 1/4, 1/4 and p = 0, 1/2, 1/2.
    assert loss.item() == pytest.approx(0.75)
