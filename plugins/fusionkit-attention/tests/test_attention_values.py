"""Values against loops over the formulas, parameter counts, initial values, explanations, restrictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import fusionkit
import pytest
import torch
from fusionkit.contract.needs import clean_dynamo
from oracles import ORACLES
from torch import Tensor

#: Operators whose n follows from the views.
FIXED_N = ("adaptation_gate", "squeeze_excite")
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
    ("residual_gate", {}),
    ("residual_gate", {"hidden": 2}),
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
]


def built(name: str, dims: list[int], **options: Any) -> Any:
    width: dict[str, Any] = {} if name in FIXED_N else {"n": 4}
    op: Any = fusionkit.create(name, dims=dims, dtype="float64", **{**width, **options})
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_().mul_(0.7)
    return op


def views_of(op: Any, *lead: int) -> list[Tensor]:
    return [torch.randn(*lead, width, dtype=torch.float64) for width in op.dims]


def agrees(said: dict[str, Tensor], op: Any, x: Sequence[Tensor], at: tuple[int, ...], present: list[bool]) -> None:
    row = [view[at].tolist() if there else [0.0] * view.shape[-1] for view, there in zip(x, present, strict=True)]
    wanted = ORACLES[op.name](op, row, present)
    assert said.keys() == wanted.keys()
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


@pytest.mark.parametrize("name", ["gated", "attention_pool", "adaptation_gate", "squeeze_excite"])
def test_a_row_without_views_is_zero(name: str) -> None:
    torch.manual_seed(0)
    op = built(name, [4, 3, 2])
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
]


@pytest.mark.parametrize("n", [1, 64, 300])
@pytest.mark.parametrize("dims", [[1], [216], [216, 240], [76, 216, 64, 240, 47, 6]], ids=str)
@pytest.mark.parametrize(("name", "options", "count"), COUNTS, ids=str)
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
    assert {name for name, _, _ in COUNTS} == set(ORACLES) == {name for name, _ in VARIANTS}


@pytest.mark.parametrize("name", ["gated", "attention_pool", "residual_gate", "film"])
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
    # Mean square 1 / fan-in but for the exceptions; vectors and biases 0.
    torch.manual_seed(0)
    dims = [300, 200] if options.get("tied") else [300, 200, 250]
    width: dict[str, Any] = {} if name in FIXED_N else {"n": 100}
    op: Any = fusionkit.create(name, dims=dims, **width, **options)
    factors = {("film", "changes"): 0.25, ("adaptation_gate", "inputs"): 0.5, ("residual_gate", "output"): 0.0}
    seen = 0
    for path, parameter in op.named_parameters():
        seen += 1
        if parameter.ndim == 1:
            assert not parameter.any(), path
        else:
            wanted = factors.get((name, path.partition(".")[0]), 1.0)
            found = parameter.shape[1] * float(parameter.detach().square().mean())
            # Few entries scatter.
            assert found == pytest.approx(wanted, rel=8 * (2 / parameter.numel()) ** 0.5), path
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
    ("residual_gate", {"parameter_fabrication": "hashed"}),
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


# ------------------------------------------------------------------ single operators


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


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 3e3), (torch.bfloat16, 1e18), (torch.float32, 1e12)])
def test_shift_of_adaptation_gate_does_not_overflow(dtype: torch.dtype, scale: float) -> None:
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


# ------------------------------------------------------------------ compiled


COMPILED = [
    ("gated", {"tied": True, "dims": [4, 3]}),
    ("gated", {"gate": "softmax"}),
    *(("attention_pool", {"scores": scores}) for scores in ("gated", "joint", "feature")),
    *((name, {}) for name in ("film", "adaptation_gate", "squeeze_excite", "residual_gate")),
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
