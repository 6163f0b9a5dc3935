"""Values against loops over the formulas, what explain says, start values, and evidence and variances at extremes."""

from __future__ import annotations

import math
from typing import Any

import fusionkit
import pytest
import torch
from oracles import ORACLES, combined, said
from torch import Tensor

from fusionkit_decision.base import logsumexp
from fusionkit_decision.bench import dempster_pairs
from fusionkit_decision.plugin import OPERATORS

#: Options beside the defaults, each on its own.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in OPERATORS),
    ("log_pool", {"weighting": "mean", "tau": 0.5}),
    ("log_pool", {"weighting": "learned", "tau": 2.0}),
    ("linear_pool", {"tau": 0.5}),
    ("linear_pool", {"weighting": "learned", "tau": 2.0}),
    ("dempster", {"evidence": "relu"}),
    ("dempster", {"evidence": "given"}),
    ("dempster", {"output": "evidence"}),
    ("dempster", {"evidence": "given", "output": "evidence"}),
    ("confidence_pool", {"tau": 0.1}),
    ("confidence_pool", {"score": "margin", "tau": 0.5}),
    ("confidence_pool", {"score": "logsumexp", "tau": 3.0}),
    ("gaussian_product", {"prior": True}),
    ("gaussian_product", {"weighting": "learned"}),
    ("gaussian_product", {"weighting": "learned", "prior": True}),
    ("gaussian_mixture", {"subsets": True}),
]
LEARNED = [(name, options) for name, options in VARIANTS if options.get("weighting") == "learned"]


def built(name: str, k: int, width: int = 4, **options: Any) -> Any:
    op: Any = fusionkit.create(name, dims=[width] * k, dtype="float64", **options)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_().mul_(0.7)
    return op


def views_of(op: Any, *lead: int, scale: float = 2.0) -> list[Tensor]:
    views = [scale * torch.randn(*lead, width, dtype=torch.float64) for width in op.dims]
    return [view.abs() for view in views] if getattr(op, "evidence", "") == "given" else views


def agrees(op: Any, views: list[Tensor], mask: Tensor | None) -> None:
    """Expect the output, and what explain says, to be what the oracle makes of the present views of each row."""
    explained = op.explain(views, mask=mask)
    out = op(views, mask=mask)
    for at in [(0, 0), (0, 2), (1, 1)]:
        present = [i for i in range(len(views)) if mask is None or mask[at][i]]
        rows = [views[i][at].tolist() for i in present]
        wanted = {"output": ORACLES[op.name](op, rows, present), **said(op, rows, present)}
        torch.testing.assert_close(out[at], torch.tensor(wanted["output"], dtype=torch.float64), rtol=1e-9, atol=1e-10)
        if explained:
            assert set(explained) == set(wanted)
            assert torch.equal(explained["output"], out)
            for key, value in wanted.items():
                expected = torch.tensor(value, dtype=torch.float64)
                torch.testing.assert_close(explained[key][at], expected, rtol=1e-9, atol=1e-10)
        else:
            assert set(wanted) == {"output"}


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_formula(name: str, options: dict[str, Any], k: int) -> None:
    if name == "comparison" and k == 1:
        pytest.skip("one view has no pair")
    torch.manual_seed(0)
    op = built(name, k, **options)
    views = views_of(op, 2, 3)
    assert op(views).shape == (2, 3, k * (k - 1) * 5 if name == "comparison" else 4)
    agrees(op, views, None)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_masked_formula(name: str, options: dict[str, Any], k: int) -> None:
    if name == "comparison" and k == 1:
        pytest.skip("one view has no pair")
    torch.manual_seed(1)
    op = built(name, k, **options)
    views, mask = views_of(op, 2, 3), torch.rand(2, 3, k) < 0.6
    mask[0, 2] = False  # A row without any view.
    mask[1, 1] = torch.arange(k) == k - 1  # The last view alone.
    for view, column in zip(views, mask.unbind(-1), strict=True):
        view[~column] = math.nan
    agrees(op, views, mask)


@pytest.mark.parametrize(("name", "empty"), [("log_pool", -math.log(4)), ("linear_pool", -math.log(4))])
def test_a_row_without_views_gives_the_uniform_distribution(name: str, empty: float) -> None:
    op = built(name, 3)
    out = op(views_of(op, 1), mask=torch.zeros(1, 3, dtype=torch.bool))
    torch.testing.assert_close(out, torch.full((1, 4), empty, dtype=torch.float64))


@pytest.mark.parametrize("name", ["dempster", "confidence_pool", "gaussian_product", "gaussian_mixture", "comparison"])
def test_a_row_without_views_gives_zeros(name: str) -> None:
    op = built(name, 3)
    assert not op(views_of(op, 1), mask=torch.zeros(1, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize("name", OPERATORS)
def test_sizes(name: str) -> None:
    for k, width in ((2, 10), (6, 8)):
        op = fusionkit.create(name, dims=[width] * k)
        assert op.calculate_n() == (k * (k - 1) * (width + 1) if name == "comparison" else width)
        assert op.calculate_l() == 0
        assert list(op.parameters()) == []


@pytest.mark.parametrize(("name", "options"), LEARNED, ids=str)
def test_learned_weights_start_as_the_default(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op: Any = fusionkit.create(name, dims=[4] * 3, dtype="float64", **options)
    plain: Any = fusionkit.create(
        name, dims=[4] * 3, dtype="float64", **{key: value for key, value in options.items() if key != "weighting"}
    )
    assert op.calculate_l() == op.weight.numel() == 3
    views = views_of(op, 5)
    torch.testing.assert_close(op(views), plain(views), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        op.weight.fill_(7.0)
    op.reset_parameters()
    torch.testing.assert_close(op(views), plain(views), rtol=1e-12, atol=1e-12)
    start = torch.zeros(3) if name != "log_pool" else torch.full((3,), math.log(math.e - 1))
    torch.testing.assert_close(op.weight.detach(), start.double())


@pytest.mark.parametrize(("name", "options"), LEARNED, ids=str)
def test_gradient_of_learned_weights(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op = built(name, 3, **options)
    row, step = [view.tolist() for view in views_of(op)], 1e-6
    views = [torch.tensor(view, dtype=torch.float64) for view in row]
    slopes = torch.randn(4, dtype=torch.float64)
    (op(views) @ slopes).backward()
    found = op.weight.grad.clone()

    def shifted(i: int, by: float) -> float:
        with torch.no_grad():
            op.weight[i] += by
            value = torch.tensor(ORACLES[name](op, row, range(3)), dtype=torch.float64) @ slopes
            op.weight[i] -= by
        return float(value)

    wanted = [(shifted(i, step) - shifted(i, -step)) / (2 * step) for i in range(3)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-8)
    assert found.abs().min() > 1e-4


# ------------------------------------------------------------------ traits of the object


def test_traits_follow_the_options() -> None:
    for name, options in VARIANTS:
        invariant = options.get("weighting") != "learned" and name != "comparison"
        assert fusionkit.create(name, dims=[4, 4], **options).traits.permutation_invariant == invariant
    assert fusionkit.create("gaussian_mixture", dims=[4, 4]).traits.idempotent
    subsets = fusionkit.create("gaussian_mixture", dims=[4] * 10, subsets=True).traits
    assert (subsets.idempotent, subsets.order_in_k) == (False, None)


# ------------------------------------------------------------------ Dempster


@pytest.mark.parametrize("k", [2, 6])
def test_dempster_is_the_pairwise_rule(k: int) -> None:
    torch.manual_seed(0)
    views = [2 * torch.randn(50, 10, dtype=torch.float64) for _ in range(k)]
    found, wanted = (
        torch.autograd.grad(call(leaves).square().sum(), leaves)
        for call in (fusionkit.create("dempster", dims=[10] * k), dempster_pairs)
        for leaves in [[view.clone().requires_grad_() for view in views]]
    )
    out = fusionkit.create("dempster", dims=[10] * k)(views)
    torch.testing.assert_close(out, dempster_pairs(views), rtol=3e-15, atol=3e-15)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_dempster_against_the_definition_by_sets() -> None:
    # Two experts who contradict each other, as in Zadeh's example: the third class, which both allow, wins nothing.
    one, other = [99.0, 0.0, 1.0], [0.0, 99.0, 1.0]
    op = built("dempster", 2, 3, evidence="given", output="evidence")
    out = op([torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)])
    torch.testing.assert_close(out, torch.tensor(combined(one, other), dtype=torch.float64))
    torch.testing.assert_close(out, torch.tensor([99.0, 99.0, 7 / 3], dtype=torch.float64))


def test_softmax_of_dempster_is_the_mean_of_the_dirichlet_distribution() -> None:
    torch.manual_seed(0)
    views = [3 * torch.randn(5, 4, dtype=torch.float64) for _ in range(3)]
    alpha = built("dempster", 3, output="evidence")(views) + 1
    torch.testing.assert_close(built("dempster", 3)(views).softmax(-1), alpha / alpha.sum(-1, keepdim=True))


@pytest.mark.parametrize(("dtype", "large"), [(torch.float32, 3e9), (torch.bfloat16, 3e9), (torch.float16, 6e4)])
@pytest.mark.parametrize("conflict", [False, True], ids=["agreement", "conflict"])
@pytest.mark.parametrize("evidence", ["softplus", "relu", "given"])
def test_dempster_at_large_evidence(evidence: str, conflict: bool, dtype: torch.dtype, large: float) -> None:
    k, c = 6, 4
    op = fusionkit.create("dempster", dims=[c] * k, evidence=evidence)
    views = [torch.zeros(2, c, dtype=dtype) for _ in range(k)]
    for i, view in enumerate(views):
        view[:, i % c if conflict else 0] = large
    leaves = [view.clone().requires_grad_() for view in views]
    explained = op.explain(leaves)
    wanted = op([view.double() for view in views])
    # Adjacent numbers of the dtype.
    rtol = 2 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 1e-6
    torch.testing.assert_close(explained["output"].double(), wanted, rtol=rtol, atol=rtol)
    for key, value in explained.items():
        grads = torch.autograd.grad(value.float().sum(), leaves, retain_graph=True)
        assert value.isfinite().all(), key
        assert all(grad.isfinite().all() for grad in grads), key


def test_the_pairwise_rule_fails_where_views_conflict() -> None:
    # Why the closed form: the conflict rounds to 1, and nothing is left of it.
    views = [torch.zeros(1, 3), torch.zeros(1, 3)]
    views[0][0, 0] = views[1][0, 1] = 3e9
    assert not dempster_pairs(views).isfinite().all()
    assert fusionkit.create("dempster", dims=[3, 3])(views).isfinite().all()


def test_small_evidence_keeps_its_digits() -> None:
    op = built("dempster", 1, evidence="given", output="evidence")
    e = torch.tensor([1e-12, 3e-9, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(op([e]), e, rtol=1e-14, atol=0.0)


# ------------------------------------------------------------------ extremes of the others


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("lv", "gap"), [(1e3, 1.0), (-1e3, 0.0), (-1e3, 1e-3), (-1e3, 1e3), (0.0, 1e3)])
def test_mixture_of_extreme_variances(dtype: torch.dtype, lv: float, gap: float) -> None:
    op = fusionkit.create("gaussian_mixture", dims=[2, 2])
    views = [torch.tensor([[mu, lv]], dtype=dtype, requires_grad=True) for mu in (-gap, gap)]
    out = op(views)
    variance = 2 * math.log(float(views[1].detach()[0, 0])) if gap else -math.inf
    assert out[0].tolist() == pytest.approx([0.0, max(lv, variance)], rel=1e-3)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), views))


@pytest.mark.parametrize("subsets", [False, True])
def test_mixture_of_distant_means(subsets: bool) -> None:
    op = fusionkit.create("gaussian_mixture", dims=[2, 2], subsets=subsets)
    views = [torch.tensor([[mu, 0.0]], requires_grad=True) for mu in (-1e18, 1e18)]
    out = op(views)
    torch.testing.assert_close(out.double(), op([view.double() for view in views]))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), views))


@pytest.mark.parametrize("options", [{}, {"prior": True}], ids=str)
@pytest.mark.parametrize("lv", [1e3, -1e3])
def test_product_of_extreme_variances(lv: float, options: dict[str, Any]) -> None:
    op = fusionkit.create("gaussian_product", dims=[2, 2], **options)
    views = [torch.tensor([[mu, lv]], requires_grad=True) for mu in (1.0, 3.0)]
    out = op(views)
    wanted = [0.0, 0.0] if options and lv > 0 else [2.0, lv - math.log(2)]
    assert out[0].tolist() == pytest.approx(wanted)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), views))


def test_a_pair_with_an_absent_view_is_zero() -> None:
    torch.manual_seed(0)
    op = fusionkit.create("comparison", dims=[4, 4, 4])
    views = [torch.randn(2, 4) for _ in range(3)]
    first, second, third = op([views[0], None, views[2]]).split(10, -1)
    assert not first.any()
    assert not third.any()
    torch.testing.assert_close(second, fusionkit.create("comparison", dims=[4, 4])([views[0], views[2]]))
    assert "its pairs are 0" in op.absent_view()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
def test_cosine_at_every_scale(scale: float) -> None:
    torch.manual_seed(0)
    op = fusionkit.create("comparison", dims=[4, 4])
    x = [scale * torch.randn(3, 4) for _ in range(2)]
    x[0][2] = 0.0
    leaves = [view.requires_grad_() for view in x]
    out = op(leaves)
    wanted = torch.nn.functional.cosine_similarity(x[0].double(), x[1].double(), -1, 0.0).nan_to_num()
    torch.testing.assert_close(out[:, -1].double(), wanted, rtol=1e-5, atol=1e-6)
    assert out[2, -1] == 0
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), leaves))


@pytest.mark.parametrize("name", ["log_pool", "linear_pool", "confidence_pool"])
def test_a_class_that_every_view_excludes(name: str) -> None:
    torch.manual_seed(0)
    op = fusionkit.create(name, dims=[4, 4, 4])
    views = [torch.randn(2, 4, dtype=torch.float64) for _ in range(3)]
    for view in views:
        view[:, 1] = -math.inf
    leaves = [view.requires_grad_() for view in views]
    out = op(leaves)
    assert (out[:, 1] == -math.inf).all()
    assert out[:, [0, 2, 3]].isfinite().all()
    if name != "confidence_pool":
        kept = op.restrict([0, 1, 2])
        assert torch.equal(kept(views), out)
        loss = torch.nn.functional.nll_loss(out, torch.tensor([0, 2]))
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, leaves))


def test_logsumexp_lets_nan_through() -> None:
    x = torch.tensor([math.nan, -math.inf, 0.0])
    out = logsumexp([x, x])
    assert out[0].isnan()
    assert out[1:].tolist() == pytest.approx([-math.inf, math.log(2)])


# ------------------------------------------------------------------ fewer views


@pytest.mark.parametrize(("name", "options"), [variant for variant in VARIANTS if variant[0] != "comparison"], ids=str)
def test_restrict_is_the_operator_with_the_other_views_absent(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    op = built(name, 3, **options)
    x = views_of(op, 6)
    for kept in ([0], [2, 1], [2, 0, 1]):
        less = op.restrict(kept)
        mask = torch.tensor([i in kept for i in range(3)]).expand(6, 3)
        torch.testing.assert_close(less([x[i] for i in kept]), op(x, mask=mask))
        fusionkit.create(**less.to_config()).load_state_dict(less.state_dict())
