"""Operators with several matrices: parameters, their number, initial values, and restriction to some views."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Unpack

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.fusion import FusionOptions, Layer, LayeredFusion, Layers


class Gate(LayeredFusion):
    """`sum_i (G_i [x_1; ...; x_k] + g_i) ∘ (P_i x_i) + S [x] + b`, G_i the groups of n rows of one matrix."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True, missing="neutral")
    per_view = ("parts",)
    rows_per_view = ("gates",)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    def layers(self) -> Layers:
        n, dims, made = self.calculate_n(), self.resolve_dims(), self.parameter_fabrication
        return {
            "parts": [Layer(n, width, False, made) for width in dims],
            "gates": [Layer(n * len(dims), dims, True, made)],
            "sum": [Layer(n, dims, False, made)],
        }

    def vectors(self) -> dict[str, tuple[int, ...]]:
        return {"offset": (self.calculate_n(),)}

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        gates, total = self.group("gates")[0](x), self.group("sum")[0](x)
        terms = [gate * part for gate, part in zip(gates.chunk(len(x), -1), self.each("parts", x), strict=True)]
        out: Tensor = torch.stack(terms).sum(0) + total + self.get_parameter("offset")
        return out


def _gate(fabrication: Any, dims: Sequence[int] = (4, 3, 5)) -> Gate:
    torch.manual_seed(0)
    op = Gate(6, list(dims), parameter_fabrication=fabrication, dtype="float64")
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_()
    return op


@pytest.mark.parametrize("dims", [(4,), (4, 3), (4, 3, 5)], ids=str)
def test_number_of_parameters(dims: tuple[int, ...]) -> None:
    D, k, n = sum(dims), len(dims), 6
    op = Gate(n, dims)
    assert op.calculate_l() == n * D + (k * n * D + k * n) + n * D + n
    assert op.calculate_l() == sum(parameter.numel() for parameter in op.parameters())
    assert Gate(n).calculate_n() == n


def test_initial_values() -> None:
    op = Gate(64, [30, 50])
    (gates,) = op.group("gates")
    assert float(gates.weight.detach().square().mean()) == pytest.approx(1 / 80, rel=0.1)
    assert float(op.group("parts")[0].weight.detach().square().mean()) == pytest.approx(1 / 30, rel=0.1)
    for name in ("offset", "gates.0.bias"):
        assert not op.get_parameter(name).any()
    assert not torch.equal(op.flat_w(), _redrawn(op, 3))
    assert torch.equal(_redrawn(op, 3), _redrawn(op, 3))


def _redrawn(op: Gate, seed: int) -> Tensor:
    op.reset_parameters(torch.Generator().manual_seed(seed))
    return op.flat_w().detach()


def test_on_the_meta_device_nothing_is_drawn() -> None:
    op = Gate(4, [4, 4], device="meta")
    assert all(parameter.is_meta for parameter in op.parameters())


@pytest.mark.parametrize("fabrication", [None, {"name": "lowrank", "r": 2}, "hashed"], ids=str)
def test_restriction(fabrication: Any) -> None:
    op = _gate(fabrication)
    x = [torch.randn(7, width, dtype=torch.float64) for width in (4, 3, 5)]
    for k in (1, 2, 3):
        for views in itertools.permutations(range(3), k):
            less = op.restrict(views)
            zeroed = [view if i in views else torch.zeros_like(view) for i, view in enumerate(x)]
            # The gate of an absent view multiplies zeros.
            torch.testing.assert_close(less([x[i] for i in views]), op(zeroed))
            assert less.calculate_l() == sum(parameter.numel() for _, parameter in less._own_parameters())


def test_restriction_of_one_view_keeps_the_fabrication() -> None:
    less = _gate({"name": "lowrank", "r": 2}, [4]).restrict([0])
    assert "lowrank" in repr(less)


def test_restriction_needs_parameters() -> None:
    op = Gate(4, [4, 4], require_parameters=False)
    with pytest.raises(fusionkit.FusionError, match="should own its parameters"):
        op.restrict([0])


def test_what_a_subclass_must_write() -> None:
    class Empty(LayeredFusion):
        """Nothing."""

    with pytest.raises(NotImplementedError, match="Empty should define layers"):
        Empty(4, [4]).layers()
