"""What the kit says to an operator that lacks a trait or an option, and that following the advice is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusionkit
from fusionkit.contract.checks import CHECKS
from fusionkit.contract.rules import rule_of
from fusionkit.fusion import Traits
from tests.contract.mutants.right import BatchNormed, GatedUnit, LayerNormed, Mix, Passes, Sorted, Thin, Total


class Gates(Mix):
    """``sum_i sigmoid(w_i A_i) tanh(w_i A_i) / 3``."""

    traits = Traits(batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        inner = [view * weight for view, weight in zip(x, self.weight, strict=True)]
        return torch.stack([torch.sigmoid(view) * torch.tanh(view) / 3 for view in inner]).sum(0)


class Attends(Total):
    """``sum_i softmax(A A^T) A``, by the function of torch."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        views = torch.stack(tuple(x), -2)
        flat = views.reshape(-1, 1, *views.shape[-2:])
        out = nn.functional.scaled_dot_product_attention(flat, flat, flat)
        return out.sum(-2).reshape(x[0].shape)


class LearnedMean(Mix):
    """``sum_i softmax_i(w_i) A_i`` with weights that begin nearly equal."""

    traits = Traits(linear=True, batch_independent=True)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        with torch.no_grad():
            self.weight.normal_(std=0.02, generator=generator)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        weights = self.weight.softmax(0)
        return torch.stack([view * weight for view, weight in zip(x, weights, strict=True)]).sum(0)


class Copies(Mix):
    """Stacks forty copies of the views."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([super()._fuse(x)] * 40).mean(0)


class Pairs(Total):
    """``sum_ij A_i * A_j``, as pairs."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([one * other for one in x for other in x]).sum(0)


class Sparse(Thin):
    """``W_ij = u_i v_j`` where i + j is divisible by 7."""

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        W = super()._materialize(blocks, n, D)
        places = torch.arange(n, device=W.device)[:, None] + torch.arange(D, device=W.device)
        return W * (places % 7 == 0)


@pytest.mark.parametrize(
    ("cls", "check", "trait"),
    [
        (Gates, "init_statistics", {"init_gain": (0.01, 0.5)}),
        (LearnedMean, "init_statistics", {"init_gain": (0.1, 1.0)}),
        (Attends, "gradgradcheck", {"once_differentiable_only": True}),
        (Attends, "forward_ad", {"once_differentiable_only": True}),
        (Copies, "memory", {"memory_factor": 80.0}),
        (Pairs, "scaling", {"order_in_k": 2}),
        (Sparse, "all_inputs_matter", {"may_ignore_views": True}),
    ],
)
def test_what_a_trait_allows(cls: Any, check: str, trait: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    report = fusionkit.check(cls, select=[check])
    (name,) = trait
    assert report.bad
    assert all(name in result.reason or name in result.rule + _mend(check) for result in report.bad), report
    traits = {field: getattr(cls.traits, field) for field in Traits.__slots__}
    monkeypatch.setattr(cls, "traits", Traits(**(traits | trait)))
    assert fusionkit.check(cls, select=[check]).ok, fusionkit.check(cls, select=[check])


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Passes, "no_grad"),
        (Sorted, "nonfinite"),
        (Sorted, "gradcheck"),
        (GatedUnit, "init_statistics"),
        (LayerNormed, "extreme_values"),
        (LayerNormed, "all_inputs_matter"),
        (BatchNormed, "no_leak"),
    ],
)
def test_what_is_unusual_and_right(cls: type, check: str) -> None:
    report = fusionkit.check(cls, select=[check])
    assert report.ok, report
    assert "passed" in {result.status for result in report.results}


def _mend(check: str) -> str:
    return next(rule.mend for rule in map(rule_of, CHECKS) if rule.name == check)


class NeedsAnOption(Total):
    def __init__(self, n: Any = None, dims: Any = None, *, heads: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__(n, dims, device=device, dtype=dtype)
        self.heads = heads


class AssertsEvenWidths(Total):
    def __init__(self, n: Any = None, dims: Any = None, device: Any = None, dtype: Any = None) -> None:
        super().__init__(n, dims, device=device, dtype=dtype)
        assert dims is None or dims[0] % 2 == 0


class LeavesOutSuper(Thin):
    def __init__(self, seed: int = 0) -> None:
        self.seed = seed


class BuildsAModuleFirst(LeavesOutSuper):
    def __init__(self, seed: int = 0) -> None:
        self.module = nn.Linear(2, 2)


class LeavesOutSuperInAFusion(Total):
    def __init__(self, n: Any = None, dims: Any = None, device: Any = None, dtype: Any = None) -> None:
        self.heads = 2


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (NeedsAnOption, ", and examples() should yield the options that it needs; found TypeError: "),
        (AssertsEvenWidths, "should build dims=[5], or refuse it with a DimsError; found AssertionError"),
        (LeavesOutSuper, ", and begin with super().__init__(); found AttributeError"),
        (BuildsAModuleFirst, ", and begin with super().__init__(); found AttributeError"),
        (LeavesOutSuperInAFusion, ", and begin with super().__init__(); found AttributeError"),
    ],
)
def test_a_constructor_that_fails(cls: type, message: str) -> None:
    report = fusionkit.check(cls, select=["forward_shape"])
    assert any(message in result.reason for result in report.bad), report
