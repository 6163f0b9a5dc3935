from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.core.first_call import attach
from tests.contract.mutants.right import Mix
from tests.contract.mutants.sizes import NothingIsZero, Squeezes, WideN
from tests.contract.mutants.values import HalfInFloat


def views(op: fusionkit.Fusion, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(1, width, dtype=dtype) for width in op.resolve_dims()]


@pytest.mark.parametrize("flag", ["argument", "environment"])
def test_right_operator_loses_it_at_the_first_call(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if flag == "environment":
        monkeypatch.setenv("FUSIONKIT_CHECK", "1")
    op = fusionkit.create("parameterized_concatenation", dims=[2, 3], n=4, check=flag == "argument")
    assert len(op._forward_hooks) == 1
    op(views(op))
    assert not op._forward_hooks
    assert not op._forward_hooks_with_kwargs
    op(views(op))


def test_without_check_there_is_none() -> None:
    assert not fusionkit.create("summation", dims=[2, 2])._forward_hooks


def test_keywords_device_and_external_w() -> None:
    op = fusionkit.create("parameterized_concatenation", dims=[2, 3], n=4, require_parameters=False, check=True)
    op(x=views(op), w=torch.randn(20), device="cpu")
    assert not op._forward_hooks


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda op: pickle.loads(pickle.dumps(op))])
def test_copies_are_checked_too(duplicate: object) -> None:
    op = fusionkit.create("summation", dims=[2, 2], check=True)
    twin = duplicate(op)  # type: ignore[operator]
    twin(views(op))
    assert not twin._forward_hooks
    assert op._forward_hooks


class CountsOneMore(Mix):
    def calculate_l(self) -> int:
        return super().calculate_l() + 1


class OnMeta(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x).to("meta")


class Pair(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return (x[0], x[1])  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("cls", "dtype", "message"),
    [
        (WideN, torch.float32, r"^WideN should return shape \(1, 12\), where calculate_n\(\) = 12; found \(1, 4\)\.$"),
        (
            Squeezes,
            torch.float32,
            r"^Squeezes should return shape \(1, 4\), where calculate_n\(\) = 4; found \(4,\)\.$",
        ),
        (HalfInFloat, torch.float16, r"^HalfInFloat should return dtype torch.float16, as the views have; found"),
        (OnMeta, torch.float32, r"^OnMeta should return a tensor on cpu; found meta\.$"),
        (
            CountsOneMore,
            torch.float32,
            r"^CountsOneMore should have calculate_l\(\) = 12, the elements of its own parameters; found 13\.$",
        ),
        (Pair, torch.float32, r"^Pair should return a tensor; found tuple\.$"),
    ],
)
def test_wrong_operator_is_refused_at_each_call(cls: type[Mix], dtype: torch.dtype, message: str) -> None:
    op = cls(dims=[4, 4, 4], dtype=dtype)
    attach(op)
    for _ in range(2):
        with pytest.raises(fusionkit.FusionError, match=message):
            op(views(op, dtype))


def test_an_error_of_the_operator_passes_through() -> None:
    op = NothingIsZero(dims=[4, 4, 4])
    attach(op)
    with pytest.raises(fusionkit.DimsError):
        op(views(op)[:2])
    assert op._forward_hooks


def test_autocast_may_change_the_dtype() -> None:
    op = fusionkit.create("parameterized_concatenation", dims=[2, 3], n=4, check=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert op(views(op)).dtype == torch.bfloat16
    assert not op._forward_hooks


def test_compiled_operator() -> None:
    op = fusionkit.create("summation", dims=[2, 2], check=True)
    compiled = torch.compile(op, backend="eager", fullgraph=True)
    assert compiled(views(op)).shape == (1, 2)
    assert op._forward_hooks
    op(views(op))
    assert not op._forward_hooks
