"""Absent views: the mask, views that are None, and the option missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusionkit
from fusionkit.errors import FusionError
from fusionkit.fusion import ElementwiseFusion, Fusion

K, WIDTH = 4, 5


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _lower_median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def _variance(values: Sequence[float]) -> float:
    return _mean([(value - _mean(values)) ** 2 for value in values])


#: What an operator makes of the present values of an entry, and its value over none.
OVER_PRESENT: dict[str, tuple[Callable[[Sequence[float]], float], float]] = {
    "summation": (sum, 0.0),
    "average": (_mean, 0.0),
    "l1_norm": (lambda values: sum(map(abs, values)), 0.0),
    "l2_norm": (lambda values: math.hypot(*values), 0.0),
    "product": (math.prod, 1.0),
    "maximum": (max, 0.0),
    "minimum": (min, 0.0),
    "median": (_lower_median, 0.0),
    "metric=sum": (sum, 0.0),
    "metric=mean": (_mean, 0.0),
    "metric=max": (max, 0.0),
    "metric=min": (min, 0.0),
    "metric=prod": (math.prod, 1.0),
    "metric=median": (_lower_median, 0.0),
    "metric=var": (_variance, 0.0),
    "metric=logsumexp": (lambda values: math.log(sum(map(math.exp, values))), 0.0),
}


def _create(name: str, **options: Any) -> Fusion:
    key, _, metric = name.partition("=")
    if metric:
        options["metric"] = metric
    return fusionkit.create(key, dims=[WIDTH] * K, **options).double()


def _case() -> tuple[list[Tensor], Tensor]:
    """Return views of 16 rows, one for each pattern of absence, NaN where they are absent; and the mask."""
    mask = torch.tensor(list(itertools.product([True, False], repeat=K)))
    x = [torch.randn(len(mask), WIDTH, dtype=torch.float64) for _ in range(K)]
    return [torch.where(mask[:, i : i + 1], view, torch.nan) for i, view in enumerate(x)], mask


@pytest.mark.parametrize("name", OVER_PRESENT)
def test_a_row_is_fused_from_its_present_views(name: str) -> None:
    x, mask = _case()
    of_values, empty = OVER_PRESENT[name]
    out = _create(name)(x, mask=mask)
    for row, column in itertools.product(range(len(mask)), range(WIDTH)):
        values = [float(view[row, column]) for i, view in enumerate(x) if mask[row, i]]
        wanted = of_values(values) if values else empty
        assert float(out[row, column]) == pytest.approx(wanted, abs=1e-12), (row, column)


@pytest.mark.parametrize("name", ["concatenation", "parameterized_concatenation", "parameterized_weighted_summation"])
def test_an_absent_view_counts_as_zeros(name: str) -> None:
    x, mask = _case()
    op = _create(name)
    assert torch.equal(op(x, mask=mask), op([view.nan_to_num(0.0) for view in x]))


@pytest.mark.parametrize("name", OVER_PRESENT)
def test_gradients_of_absent_entries_are_zero(name: str) -> None:
    x, mask = _case()
    views = [view.requires_grad_() for view in x]
    _create(name)(views, mask=mask).sum().backward()
    for i, view in enumerate(views):
        assert view.grad is not None
        assert view.grad.isfinite().all()
        assert not view.grad[~mask[:, i]].any()


def test_infinite_entries_that_are_present_keep_their_gradient() -> None:
    x = torch.full((1, 1), -math.inf, requires_grad=True)
    op = fusionkit.create("maximum", dims=[1, 1, 1])
    out = op([x, torch.zeros(1, 1), torch.zeros(1, 1)], mask=torch.tensor([[True, False, False]]))
    out.backward(torch.ones_like(out))
    assert out.item() == -math.inf
    assert x.grad is not None
    assert float(x.grad) == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_mean_is_counted_in_float32(dtype: torch.dtype) -> None:
    x = [torch.full((1, 2), 3e4 if dtype == torch.float16 else 1.5, dtype=dtype) for _ in range(5)]
    out = fusionkit.create("average", dims=[2] * 5)(x, mask=torch.tensor([[True] * 3 + [False] * 2]))
    assert out.dtype == dtype
    assert torch.equal(out, x[0])


def test_the_preprocess_gets_zeros_and_the_operator_its_fill() -> None:
    seen: list[Tensor] = []

    def keep(view: Tensor) -> Tensor:
        seen.append(view.clone())
        return view + 1.0

    op = fusionkit.create("product", dims=[2, 2], preprocess=keep)
    x = [torch.full((1, 2), 3.0), torch.full((1, 2), torch.nan)]
    assert torch.equal(op(x, mask=torch.tensor([[True, False]])), torch.full((1, 2), 4.0))
    assert torch.equal(seen[1], torch.zeros(1, 2))


def test_no_preprocess_runs_for_a_view_that_is_none() -> None:
    class Refuses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert not x.isnan().any()
            return x

    x = torch.randn(3, 2)
    op = fusionkit.create("average", dims=[2, 2], preprocess=Refuses())
    assert torch.equal(op([None, x]), x)


def test_a_call_without_a_mask_records_the_same_operations() -> None:
    from fusionkit.kernels.tracing import Recorder

    op, x = fusionkit.create("average", dims=[2, 2]), [torch.randn(3, 2) for _ in range(2)]
    with Recorder() as plain:
        op._fuse(x)
    with Recorder() as called:
        op(x)
    assert [str(o) for o in called.operations] == [str(o) for o in plain.operations]


MISSING: dict[str, Callable[[Fusion, list[Tensor], Tensor], Tensor]] = {
    "placeholder": lambda op, x, mask: op(
        [
            torch.where(mask[:, i : i + 1], view, op.get_parameter("stand_in.placeholder")[WIDTH * i : WIDTH * (i + 1)])
            for i, view in enumerate(x)
        ]
    ),
    "indicator": lambda op, x, mask: torch.stack(
        [
            torch.stack([x[i][row] for i in range(K) if mask[row, i]] or [torch.zeros(WIDTH).double()]).mean(0)
            + sum(op.get_parameter("stand_in.indicator")[i] for i in range(K) if not mask[row, i])
            for row in range(len(mask))
        ]
    ),
    "rescale": lambda op, x, mask: torch.stack(
        [
            torch.stack([x[i][row] for i in range(K) if mask[row, i]] or [torch.zeros(WIDTH).double()]).mean(0)
            * (K / max(1, int(mask[row].sum())))
            for row in range(len(mask))
        ]
    ),
}


@pytest.mark.parametrize("kind", MISSING)
def test_the_option_missing(kind: str) -> None:
    x, mask = _case()
    op = _create("average", missing=kind)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_()
    assert torch.allclose(op(x, mask=mask), MISSING[kind](op, x, mask))
    assert op.calculate_l() == {"placeholder": K * WIDTH, "indicator": K * WIDTH, "rescale": 0}[kind]
    again = fusionkit.create(**op.to_config())
    again.load_state_dict(op.state_dict())
    assert torch.equal(again(x, mask=mask), op(x, mask=mask))
    bare = _create("average", missing=kind, require_parameters=False)
    assert list(bare.parameters()) == []
    assert torch.equal(bare(x, w=op.flat_w().detach(), mask=mask), op(x, mask=mask))


def test_placeholders_start_at_the_fill_or_at_zero() -> None:
    for name, start in (("product", 1.0), ("maximum", 0.0), ("average", 0.0)):
        parameter = _create(name, missing="placeholder").get_parameter("stand_in.placeholder")
        assert torch.equal(parameter, torch.full_like(parameter, start))


def test_a_subclass_counts_the_option_once() -> None:
    cls: Any = type(_create("parameterized_weighted_summation"))

    class Twice(cls):  # type: ignore[misc]
        def calculate_l(self) -> int:
            return int(super().calculate_l())

    op = Twice(dims=[3, 3])
    op.add_missing("indicator")
    assert op.calculate_l() == 2 + 2 * 3 == sum(parameter.numel() for parameter in op.parameters())


def test_the_option_counts_beside_the_parameters_of_a_mixin() -> None:
    class Counts:
        def calculate_l(self) -> int:
            return 0

    class Op(Counts, ElementwiseFusion):
        pass

    class Below(Op):
        def calculate_l(self) -> int:
            return super().calculate_l()

    for cls in (Op, Below):
        op = cls(dims=[2, 2])
        op.add_missing("placeholder")
        assert op.calculate_l() == op.flat_w().numel() == 4


def test_reset_parameters_resets_the_option() -> None:
    op = _create("parameterized_weighted_summation", missing="indicator")
    indicator = op.get_parameter("stand_in.indicator")
    with torch.no_grad():
        indicator.fill_(3.0)
    op.reset_parameters()
    assert not indicator.any()


X = [torch.zeros(3, WIDTH) for _ in range(K)]
MASK = torch.ones(3, K, dtype=torch.bool)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (X, MASK[:, :3], r"mask should have shape \(3, 4\).*found \(3, 3\)"),
        (X, MASK[0], r"mask should have shape \(3, 4\).*found \(4,\)"),
        (X, MASK.float(), r"mask should be a tensor of bool.*found torch.float32"),
        (X, MASK.tolist(), r"mask should be a tensor of bool.*found list"),
        (X, MASK.to("meta"), r"mask should be on cpu.*found meta"),
        ([None] * K, None, r"x should contain at least one tensor; found None for every view"),
        ([None, *X[1:3], torch.zeros(3, 2)], None, r"View 3 should have width 5; found 2"),
        ([None, *X[1:3], torch.zeros(2, WIDTH)], None, r"View 3 should have the leading dimensions of view 1"),
    ],
)
def test_bad_masks(x: Any, mask: Any, message: str) -> None:
    with pytest.raises(FusionError, match=message):
        fusionkit.create("average", dims=[WIDTH] * K)(x, mask=mask)


def test_an_operator_that_refuses_names_itself_and_the_option() -> None:
    op = fusionkit.create("metric", dims=[2, 2], metric=lambda t: t.mean(-1))
    x = [torch.ones(3, 2), torch.ones(3, 2)]
    with pytest.raises(FusionError, match=r"metric.*found a mask.*missing='placeholder'"):
        op(x, mask=torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(FusionError, match=r"metric.*found None for view 1.*missing='placeholder'"):
        op([x[0], None])
    admits = fusionkit.create("metric", dims=[2, 2], metric=lambda t: t.mean(-1), missing="placeholder")
    assert torch.equal(admits([x[0], None]), torch.full((3, 2), 0.5))


def test_batch_norm_is_refused_with_a_mask_in_training() -> None:
    op = fusionkit.create("average", dims=[2, 2], preprocess={"_target_": "torch.nn.BatchNorm1d", "num_features": 2})
    x, mask = [torch.randn(3, 2), torch.randn(3, 2)], torch.tensor([[True, False]] * 3)
    with pytest.raises(FusionError, match=r"preprocess should not have statistics of the batch.*BatchNorm1d"):
        op(x, mask=mask)
    assert op.eval()(x, mask=mask).shape == (3, 2)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("average", "placeholdr", r"missing should be None or one of placeholder.*Did you mean 'placeholder'"),
        ("product", "rescale", r"missing should be placeholder or indicator for product"),
    ],
)
def test_bad_options(name: str, kind: Any, message: str) -> None:
    with pytest.raises(FusionError, match=message):
        fusionkit.create(name, dims=[2, 2], missing=kind)


def test_the_device_moves_the_mask() -> None:
    op = fusionkit.create("average", dims=[2, 2])
    x, mask = [torch.ones(3, 2), torch.ones(3, 2)], torch.ones(3, 2, dtype=torch.bool)
    assert op(x, device="meta", mask=mask).is_meta


def _call_with_mask(op: Fusion, mask: Tensor, *views: Tensor) -> Tensor:
    out: Tensor = op(list(views), mask=mask)
    return out


def test_large_batches_and_transforms_agree() -> None:
    """The bits of zeros are written differently without gradients, with them, and under vmap."""
    for name in ("summation", "average", "concatenation", "parameterized_concatenation"):
        op = fusionkit.create(name, dims=[WIDTH] * K)
        x, mask = [torch.randn(300, WIDTH) for _ in range(K)], torch.rand(300, K) < 0.5
        spoilt = [torch.where(mask[:, i : i + 1], view, torch.inf) for i, view in enumerate(x)]
        with torch.no_grad():
            fast = op(spoilt, mask=mask)
        recorded = op([view.requires_grad_() for view in spoilt], mask=mask)
        one_row = partial(_call_with_mask, op)
        mapped = torch.vmap(one_row)(mask, *[view.detach() for view in spoilt])
        assert torch.allclose(fast, recorded, atol=1e-6)
        assert torch.allclose(fast, mapped, atol=1e-6)


def test_a_mask_in_the_place_of_w_is_named() -> None:
    with pytest.raises(FusionError, match=r"w should be a tensor of parameters.*mask=\.\.\."):
        fusionkit.create("average", dims=[2, 2])([torch.ones(3, 2)] * 2, torch.ones(3, 2, dtype=torch.bool))
