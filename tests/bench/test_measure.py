"""The references of each operator against it: all compute the same."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.bench import measure as module
from fusionkit.bench import reference_library
from fusionkit.bench.cases import Case, Size
from fusionkit.bench.measure import Row, measure
from fusionkit.errors import DimsError, FusionError
from fusionkit.fusion import Fusion

SMALL = Size(5, (3, 4), 2)
EQUAL = Size(5, (3, 3, 3), 2)


def row(name: str, size: Size, *, backward: bool = False, **options: Any) -> Row:
    found = measure(Case(name, size, backward, options), seconds=0.0)
    assert found is not None
    return found


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", ["dense", "lowrank", "zero", "parameterized_concatenation"])
def test_products(name: str, backward: bool) -> None:
    found = row(name, SMALL, backward=backward)
    assert (found.name, found.m, found.dims, found.n) == (name, 5, [3, 4], 2)
    assert found.ratios["limit"] is not None
    assert found.ratios["cat_linear"] is not None
    assert min(found.milliseconds, found.ratios["limit"], found.ratios["cat_linear"]) > 0
    assert (found.ratios["built"] is not None) == (name in ("lowrank", "zero"))
    assert found.skips_materialization
    assert found.mode == ("forward and backward" if backward else "forward")
    if backward or name == "zero":
        assert found.error is None
    else:
        assert found.error is not None
        assert found.error < 1e-6


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", sorted(module.STACKED))
def test_elementwise(name: str, backward: bool) -> None:
    found = row(name, EQUAL, backward=backward)
    assert found.ratios["limit"] is not None
    assert (found.ratios["built"] is not None) == (name != "metric")
    assert found.ratios["cat_linear"] is None
    assert found.skips_materialization is None


@pytest.mark.parametrize("name", ["dense", "parameterized_concatenation", "lowrank"])
def test_the_bound_is_that_of_the_dense_product(name: str) -> None:
    found = row(name, SMALL)
    assert (found.ratios["addmm"] is None) == (found.ratios["of_bound"] is None) == (name == "lowrank")


@pytest.mark.parametrize(
    ("mode", "views", "allowed"),
    [
        ("forward", 100, 1.15 * 2 + 4 * 0.5 + 100e-6),
        ("forward", 101, 1.35 * 2 + 4 * 0.5 + 101e-6),
        ("forward and backward", 2, 1.2 * 2 + 6 * 0.5 + 2e-6),
    ],
)
def test_the_bound(mode: str, views: int, allowed: float) -> None:
    """In seconds: the better reference takes 2, a call 0.5."""
    samples = {"own": [3.0], "cat_linear": [5.0], "addmm": [2.0], "call": [0.5]}
    assert module._of_bound(samples, mode, views) == pytest.approx(3.0 / allowed, abs=1e-3)
    assert module._of_bound({"own": [3.0]}, mode, views) is None


def test_view_by_view_computes_the_same() -> None:
    op, x = fusionkit.create("parameterized_concatenation", dims=[3, 4], n=2), [torch.randn(5, 3), torch.randn(5, 4)]
    torch.testing.assert_close(module._view_by_view(x, op.get_parameter("weight")), op(x))


def references(op: Fusion, key: str, x: list[Tensor]) -> dict[str, Tensor]:
    return {name: call() for name, (call, _) in module._references(key, op, x, []).items()}


@pytest.mark.parametrize("name", sorted(module.STACKED.keys() - {"metric"}))
def test_stacked_forms_compute_the_same(name: str) -> None:
    op, x = fusionkit.create(name, dims=[3] * 4), [torch.randn(5, 3) for _ in range(4)]
    built = references(op, name, x)["built"]
    scale = 2.0 if name == "parameterized_weighted_summation" else 1.0  # Its weights are 1/sqrt(4).
    torch.testing.assert_close(op(x) * scale, built)


def test_adding_up() -> None:
    x = [torch.randn(5, 3) for _ in range(4)]
    before = [view.clone() for view in x]
    torch.testing.assert_close(module._add_up(x), x[0] + x[1] + x[2] + x[3])
    torch.testing.assert_close(module._add_up(x[:1]), x[0])
    assert all(torch.equal(a, b) for a, b in zip(x, before, strict=True))


@pytest.mark.parametrize("name", ["monarch", "toeplitz", "one"])
def test_built_and_product_compute_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = fusionkit.create("parameterized_concatenation", dims=[8, 24], n=16, parameter_fabrication=name)
    x = [torch.randn(5, 8), torch.randn(5, 24)]
    monkeypatch.setattr(type(op.fabrication), "skips_materialization", lambda self, first: False)
    with torch.no_grad():
        found = references(op, name, x)
        torch.testing.assert_close(found["built"], op(x))
        torch.testing.assert_close(found["product"], op(x))


def test_extra_memory() -> None:
    """By hand: lowrank keeps 4 x 2 inner numbers besides the 4 x 5 of the result, and joins the views."""
    size = Size(4, (6, 6), 5)
    assert row("lowrank", size, r=2).extra_bytes == 4 * (4 * 12 + 4 * 2)
    assert row("summation", Size(4, (6, 6, 6), 5)).extra_bytes == 4 * 4 * 6
    # The gradient of the result, and one for all views, which is that tensor itself.
    assert row("summation", Size(4, (6, 6, 6), 5), backward=True).extra_bytes == 2 * 4 * 4 * 6


def test_half_precision_and_positive_numbers() -> None:
    found = row("dense", Size(64, (8,) * 200, 16, "bfloat16", positive=True))
    assert (found.dtype, found.positive) == ("bfloat16", True)
    assert found.error is not None
    assert 1e-4 < found.error < 0.01


def test_fusions_with_other_widths_are_left_out() -> None:
    assert measure(Case("summation", SMALL, False), seconds=0.0) is None


def test_options_that_do_not_fit() -> None:
    with pytest.raises(FusionError, match=r"r, the rank of lowrank, should be from 1 to min\(n, D\) = 2"):
        row("lowrank", SMALL, r=3)
    with pytest.raises(DimsError, match=r"weights should .*found 1"):
        row("weighted_summation", EQUAL, weights=[1.0])


def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda op: op)
    found = measure(Case("summation", EQUAL, False), seconds=0.0, compiled=True)
    assert found is not None
    assert found.ratios["compiled"] is not None


def test_the_reference_library_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    reference_library._library.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert reference_library.counterpart("median", [3, 3], 3) is None
    assert row("median", EQUAL).ratios["library"] is None
    reference_library._library.cache_clear()


def test_the_reference_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("tinybig.fusion")

    class SummationFusion:
        def __init__(self, dims: list[int]) -> None:
            assert dims == [3, 3, 3]

        def __call__(self, x: list[Tensor], device: str) -> Tensor:
            assert device == "cpu"
            return torch.stack(x).sum(0)

    library.summation_fusion = SummationFusion  # type: ignore[attr-defined]
    monkeypatch.setattr(reference_library, "_library", lambda: library)
    assert row("summation", EQUAL).ratios["library"] is not None
    assert row("l2_norm", EQUAL).ratios["library"] is None
