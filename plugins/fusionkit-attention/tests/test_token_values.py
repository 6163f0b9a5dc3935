"""embracenet, mixture_of_experts, transformer and perceiver: values, sizes, initial values, explain, restrict."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import fusionkit
import pytest
import torch
from token_oracles import ORACLES, balance_loss

from fusionkit_attention import tokens

SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"width": 8, "heads": 2},
    "perceiver": {"width": 8, "heads": 2, "latents": 3},
}
#: Options beside the defaults, each on its own.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ORACLES),
    ("mixture_of_experts", {"experts": 3, "top_k": 2}),
    ("mixture_of_experts", {"experts": 2, "top_k": 2, "balance": 0}),
    ("mixture_of_experts", {"experts": "views"}),
    ("transformer", {"pool": "mean"}),
    ("transformer", {"pool": "concat", "depth": 1, "ff_width": 5}),
    ("transformer", {"depth": 1, "heads": 8}),
    ("transformer", {"depth": 3, "heads": 1, "width": 4}),
    ("perceiver", {"pool": "flatten", "depth": 0}),
    ("perceiver", {"depth": 2, "ff_width": 5, "heads": 4}),
    ("perceiver", {"latents": 1, "pool": "flatten"}),
]
DIMS = [[4], [4, 3], [3, 1, 2], [2, 3, 2, 2, 1, 3]]


def built(name: str, dims: list[int], **options: Any) -> Any:
    """Return the operator in float64 and evaluation mode, with random parameters."""
    op: Any = fusionkit.create(name, dims=dims, dtype="float64", **{**SMALL.get(name, {}), **options})
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_().mul_(0.7)
    return op.eval()


def views_of(op: Any, *lead: int) -> list[torch.Tensor]:
    return [torch.randn(*lead, width, dtype=torch.float64) for width in op.dims]


def agrees(op: Any, x: list[torch.Tensor], mask: torch.Tensor | None) -> None:
    """Compare output and explain of every row with the oracle."""
    out, said = op(x, mask=mask), op.explain(x, mask=mask)
    assert torch.equal(said["output"], out)
    share = said["weights"] if "weights" in said else said["experts"]
    lead = out.shape[:-1]
    given = torch.ones(*lead, len(x), dtype=torch.bool) if mask is None else mask
    for at in torch.cartesian_prod(*map(torch.arange, lead)).reshape(-1, len(lead)).tolist():
        row = tuple(at)
        y, weights = ORACLES[op.name](op, [view[row].tolist() for view in x], given[row].tolist())
        torch.testing.assert_close(out[row], torch.tensor(y, dtype=torch.float64), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(share[row], torch.tensor(weights, dtype=torch.float64), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_formula(name: str, options: dict[str, Any], dims: list[int]) -> None:
    torch.manual_seed(0)
    op = built(name, dims, n=3, **options)
    agrees(op, views_of(op, 2, 1), None)
    x = views_of(op, 4)
    mask = torch.rand(4, len(dims)) < 0.6
    mask[0] = False
    agrees(op, x, mask)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("name", ["transformer", "perceiver"])
def test_both_ways_to_attend(name: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(tokens, "FEW_PAIRS", few)
    op = built(name, [3, 1, 2], n=3)
    x = views_of(op, 3)
    agrees(op, x, None)
    agrees(op, x, torch.tensor([[True, False, True], [False, False, False], [True, True, True]]))


def test_top_k_of_views() -> None:
    torch.manual_seed(0)
    op = built("mixture_of_experts", [2, 3, 2, 2], n=3, experts="views", top_k=2)
    x = views_of(op, 5)
    mask = torch.tensor([[True] * 4, [False] * 4, [True, False, False, False], [True, True, False, True], [True] * 4])
    agrees(op, x, mask)
    g = op.explain(x, mask=mask)["weights"]
    assert (g > 0).sum(-1).tolist() == [2, 0, 1, 2, 2]


ATT_FF = 4 * 64**2 + 3 * 64 + 2 * 64 * 128 + 128 + 64
LAYER = ATT_FF + 4 * 64
D, K, N = 76 + 216 + 64, 3, 10
#: For views of widths 76, 216 and 64: name, options, l.
COUNTS: list[tuple[str, dict[str, Any], int]] = [
    ("embracenet", {}, N * (D + K)),
    ("mixture_of_experts", {}, 4 * (N + 1) * (D + 1)),
    ("mixture_of_experts", {"experts": 7, "top_k": 2}, 7 * (N + 1) * (D + 1)),
    ("mixture_of_experts", {"experts": "views"}, N * (D + K) + K * (D + 1)),
    ("transformer", {}, 64 * (D + K) + 64 + 2 * LAYER + 128 + N * 65),
    ("transformer", {"pool": "mean"}, 64 * (D + K) + 2 * LAYER + 128 + N * 65),
    ("transformer", {"pool": "concat", "depth": 5}, 64 * (D + K) + 5 * LAYER + 128 + N * (64 * K + 1)),
    (
        "transformer",
        {"width": 12, "ff_width": 7, "depth": 1},
        12 * (D + K) + 12 + (4 * 144 + 36) + (2 * 12 * 7 + 7 + 12) + 48 + 24 + N * 13,
    ),
    ("perceiver", {}, 64 * (D + K) + 8 * 64 + (ATT_FF + 6 * 64) + LAYER + 128 + N * 65),
    (
        "perceiver",
        {"pool": "flatten", "depth": 0, "latents": 3},
        64 * (D + K) + 3 * 64 + (ATT_FF + 6 * 64) + 128 + N * (3 * 64 + 1),
    ),
]


@pytest.mark.parametrize(("name", "options", "count"), COUNTS, ids=str)
def test_counts(name: str, options: dict[str, Any], count: int) -> None:
    op = fusionkit.create(name, dims=[76, 216, 64], n=N, device="meta", **options)
    assert op.calculate_l() == count
    assert sum(parameter.numel() for parameter in op.parameters()) == count


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("embracenet", {"parameter_fabrication": None}),
        ("mixture_of_experts", {"experts": 4, "top_k": None, "balance": 0.01}),
        ("transformer", {"width": 64, "heads": 4, "depth": 2, "ff_width": 128, "pool": "cls"}),
        ("perceiver", {"latents": 8, "width": 64, "heads": 4, "depth": 1, "ff_width": 128, "pool": "mean"}),
    ],
)
def test_defaults(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    by_default = fusionkit.create(name, dims=[5, 4], n=3).eval()
    explicit = fusionkit.create(name, dims=[5, 4], n=3, **options).eval()
    explicit.load_state_dict(by_default.state_dict())
    x = [torch.randn(4, width) for width in (5, 4)]
    for key, value in by_default.explain(x).items():
        assert torch.equal(value, explicit.explain(x)[key])


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_initial_values(name: str, options: dict[str, Any]) -> None:
    wide: dict[str, Any] = {"width": 96, "latents": 64} if name == "perceiver" else {"width": 96}
    wide = wide if name in SMALL else {}
    op: Any = fusionkit.create(name, dims=[60, 90], n=80, **{**options, **wide})
    op.reset_parameters(torch.Generator().manual_seed(0))
    power = 2 if name == "embracenet" else 1
    for path, parameter in op.named_parameters():
        if path.endswith(".weight"):
            # About four standard deviations of a mean of squares of normal numbers.
            near = pytest.approx(1, abs=6 / math.sqrt(parameter.numel()))
            assert parameter.square().mean().item() * parameter.shape[1] / power == near, path
        elif path == "norm_weights":
            assert (parameter == 1).all()
        elif path in ("cls", "latents"):
            assert abs(parameter.mean().item()) < 4 / math.sqrt(parameter.numel())
            assert parameter.square().mean().item() == pytest.approx(1, abs=6 / math.sqrt(parameter.numel()))
        else:
            assert path == "norm_biases" or path.endswith(".bias")
            assert not parameter.any()


@pytest.mark.parametrize("made", [None, "lowrank"])
@pytest.mark.parametrize(
    ("name", "options"), [*VARIANTS, ("mixture_of_experts", {"experts": "views", "top_k": 2})], ids=str
)
def test_restrict_is_the_operator_with_the_other_views_absent(name: str, options: dict[str, Any], made: Any) -> None:
    torch.manual_seed(0)
    op = built(name, [2, 3, 4], n=4, preprocess=["linear"], parameter_fabrication=made, **options)
    x = views_of(op, 5)
    for k in (1, 2, 3):
        for kept in permutations(range(3), k):
            less = op.restrict(kept)
            mask = torch.tensor([i in kept for i in range(3)]).expand(5, 3)
            torch.testing.assert_close(less([x[i] for i in kept]), op(x, mask=mask))
            fusionkit.create(**less.to_config()).load_state_dict(less.state_dict())


def test_restrict_concat_keeps_the_fabrication() -> None:
    op = built("transformer", [2, 3, 4], n=4, pool="concat", parameter_fabrication="lowrank")
    less: Any = op.restrict([2, 0])
    assert [module.dense for module in less.inputs] == [False, False]
    columns = op.output[0].weight.split(8, 1)
    assert torch.equal(less.output[0].weight, torch.cat([columns[2], columns[0]], 1))


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"experts": "views"}, {"experts": "views", "top_k": 2}], ids=str)
def test_balance_loss(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op = built("mixture_of_experts", [2, 3, 2], n=4, balance=0.3, **options)
    x = views_of(op, 2, 3)
    mask = torch.rand(2, 3, 3) < 0.6
    mask[0, 1] = False
    for given in (None, mask):
        loss = op.explain(x, mask=given)["loss"]
        there = torch.ones_like(mask) if given is None else given
        rows = [[view.reshape(6, -1)[i].tolist() for view in x] for i in range(6)]
        wanted = balance_loss(op, rows, there.reshape(6, 3).tolist())
        assert loss.item() == pytest.approx(wanted, rel=1e-9)
        assert loss.shape == ()
        (gradient,) = torch.autograd.grad(loss, [(op.scores if "experts" in options else op.gate)[0].weight])
        assert gradient.any()


def test_balance_loss_is_least_where_experts_are_used_alike() -> None:
    op = built("mixture_of_experts", [2, 3], n=4, balance=0.3)
    x = views_of(op, 5)
    with torch.no_grad():
        for parameter in op.gate.parameters():
            parameter.zero_()
    assert op.explain(x)["loss"].item() == pytest.approx(0.3)
    assert op.explain([view[:0] for view in x])["loss"].item() == 0
    assert set(built("mixture_of_experts", [2, 3], n=4, balance=0).explain(x)) == {"output", "experts"}


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


def test_weights_sum() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    for name, options, one in [
        ("embracenet", {}, True),
        ("mixture_of_experts", {"experts": "views"}, True),
        ("transformer", {"pool": "mean"}, True),
        ("transformer", {"pool": "concat"}, True),
        ("transformer", {}, False),
        ("perceiver", {}, False),
    ]:
        op = built(name, [3, 2, 2], n=4, **options)
        total = op.explain(views_of(op, 3), mask=mask)["weights"].sum(-1)
        assert total[1] == 0
        for row in (0, 2):
            assert total[row].item() == pytest.approx(1) if one else 0 < total[row].item() < 0.999


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["transformer", "perceiver"])
def test_norms_do_not_overflow_in_half_precision(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    op = fusionkit.create(name, dims=[4, 6], n=7, **SMALL[name]).to(dtype).eval()
    views = [(torch.randn(8, width) * 8e3).to(dtype) for width in op.dims or ()]
    with torch.no_grad():
        found = op(views).double()
        wanted = op.double()([view.double() for view in views])
    assert (found - wanted).norm() < 0.03 * wanted.norm()


def test_tokens_of_a_row_attend_to_each_other_alone() -> None:
    torch.manual_seed(0)
    for name in ("transformer", "perceiver"):
        op = built(name, [3, 2], n=4)
        x = views_of(op, 4)
        apart = torch.stack([op([view[i] for view in x]) for i in range(4)])
        torch.testing.assert_close(op(x), apart)
