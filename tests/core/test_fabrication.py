"""The base class of fabrications, foreign callables, and the product without the concatenation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusionkit
from fusionkit.errors import ConfigError, DimsError, FusionError, RegistryError
from fusionkit.fabrication import CallableFabrication, Fabrication, as_fabrication
from fusionkit.fabrications.dense import Dense
from fusionkit.fabrications.lowrank import LowRank
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


class Seeded(Fabrication):
    """``diag(u) F`` with a frozen F (n, D) drawn from ``seed``."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"u": (n,)}

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"F": (n, D)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        return {"F": torch.randn(n, D, generator=torch.Generator().manual_seed(self.seed))}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return blocks["u"][:, None] * self.frozen(n, D, blocks["u"])["F"]


# ---------------------------------------------------------------------- the base class


@pytest.mark.parametrize("fabrication", [Dense(), LowRank(), LowRank(r=1), Seeded()], ids=repr)
@pytest.mark.parametrize(("n", "dims"), [(5, [4, 7]), (1, [3]), (9, [1, 2]), (1, [1]), (13, [11, 6, 2])])
def test_project_equals_materialize(fabrication: Fabrication, n: int, dims: list[int]) -> None:
    D = sum(dims)
    w = torch.randn(fabrication.calculate_l(n, D), dtype=torch.float64, requires_grad=True)
    x = [torch.randn(3, width, dtype=torch.float64, requires_grad=True) for width in dims]
    W = fabrication.materialize(w, n, D)
    assert W.shape == (n, D)
    assert torch.equal(fabrication(n=n, D=D, w=w.view(1, -1), device="cpu"), W)
    projected, expected = fabrication.project(x, w, n), torch.cat(x, -1) @ W.T
    torch.testing.assert_close(projected, expected)
    cotangent = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(projected, (w, *x), cotangent),
        torch.autograd.grad(expected, (w, *x), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("fabrication", [Dense(), LowRank(), LowRank(r=1), Seeded()], ids=repr)
@pytest.mark.parametrize(("n", "D"), [(64, 649), (3, 50), (1, 1)])
def test_init_gives_mean_square_one_over_D(fabrication: Fabrication, n: int, D: int) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        w = torch.empty(fabrication.calculate_l(n, D), dtype=dtype)
        fabrication.init_(w, n, D, torch.Generator().manual_seed(3))
        assert fabrication.materialize(w.double(), n, D).square().sum().item() == pytest.approx(n, rel=0.02)
    again = torch.empty_like(w)
    fabrication.init_(again, n, D, torch.Generator().manual_seed(3))
    assert torch.equal(again, w)


@pytest.mark.parametrize("shape", [(34,), (1, 34, 1), (2, 35), (36,)])
def test_wrong_length(shape: tuple[int, ...]) -> None:
    with pytest.raises(FusionError, match=r"^w should .*found "):
        Dense().materialize(torch.zeros(shape), 5, 7)


@pytest.mark.parametrize(("n", "D"), [(0, 3), (3, -1), (2.0, 3), (True, 3)])
def test_sizes_are_checked(n: Any, D: Any) -> None:
    with pytest.raises(DimsError, match="should be an integer of at least 1"):
        Dense().calculate_l(n, D)


def test_frozen_parts_are_seeded_buffers() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=Seeded(seed=7))
    other = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=Seeded(seed=7), dtype="float64")
    drawn = torch.randn(5, 7, generator=torch.Generator().manual_seed(7))
    assert torch.equal(op.state_dict()["fabrication.F"], drawn)
    assert torch.equal(other.state_dict()["fabrication.F"], drawn.double())
    assert op.calculate_l() == 5
    # Unprepared, the same matrix is drawn for the call and nothing is kept.
    unprepared = Seeded(seed=7)
    torch.testing.assert_close(unprepared.materialize(op.flat_w(), 5, 7), op.fabrication.materialize(op.flat_w(), 5, 7))
    assert not list(unprepared.buffers())


def test_frozen_parts_on_meta_are_filled_by_reset_parameters() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=Seeded(seed=7), device="meta")
    assert op.state_dict()["fabrication.F"].is_meta
    op.to_empty(device="cpu")
    op.reset_parameters()
    assert torch.equal(op.state_dict()["fabrication.F"], Seeded(seed=7)._draw_frozen(5, 7)["F"])
    bare = ParameterizedConcatenation(
        dims=[3, 4], n=5, parameter_fabrication=Seeded(seed=7), device="meta", require_parameters=False
    )
    bare.to_empty(device="cpu")
    bare.reset_parameters()
    assert torch.equal(bare.state_dict()["fabrication.F"], op.state_dict()["fabrication.F"])


def test_a_loaded_state_wins_over_the_seed() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=Seeded(seed=7))
    other = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=Seeded(seed=8))
    x = [torch.randn(2, 3), torch.randn(2, 4)]
    assert not torch.equal(op(x, w=other.flat_w()), other(x))
    op.load_state_dict(other.state_dict())
    assert torch.equal(op(x), other(x))
    op.reset_parameters()
    assert torch.equal(op.state_dict()["fabrication.F"], Seeded(seed=7)._draw_frozen(5, 7)["F"])


def test_the_operator_prepares_its_own_copy() -> None:
    mine = Seeded()
    ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=mine)
    assert not list(mine.buffers())


# ---------------------------------------------------------------------- what parameter_fabrication accepts


class Outer:
    """A foreign object: an outer product of two vectors."""

    def calculate_l(self, n: int, D: int) -> int:
        return n + D

    def __call__(self, n: int, D: int, w: Tensor, device: str = "cpu") -> Tensor:
        if tuple(w.shape) != (1, n + D):
            raise RuntimeError(f"foreign objects get w as (1, l); found {tuple(w.shape)}")
        return torch.outer(w[0, :n], w[0, n:])


def test_foreign_callable() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=Outer())
    x = [torch.randn(2, 3), torch.randn(2, 4)]
    assert [(name, tuple(p.shape)) for name, p in op.named_parameters()] == [("w", (12,))]
    assert op.calculate_l() == 12
    w = op.get_parameter("w")
    torch.testing.assert_close(op(x), torch.cat(x, -1) @ torch.outer(w[:5], w[5:]).T)
    assert op.fabrication.materialize(op.flat_w(), 5, 7).square().sum().item() == pytest.approx(5, rel=1e-3)
    with pytest.raises(ConfigError, match=r"the argument parameter_fabrication should be .* found an object of type"):
        op.to_config()


def test_foreign_callable_that_returns_the_wrong_thing() -> None:
    class Wrong(Outer):
        def __call__(self, n: int, D: int, w: Tensor, device: str = "cpu") -> Any:
            return w.view(-1)[: n * D] if n > 4 else None

    for n, found in ((5, r"\(12,\)"), (4, "NoneType")):
        with pytest.raises(FusionError, match=rf"should return a matrix of shape \({n}, 7\); found {found}"):
            ParameterizedConcatenation(dims=[3, 4], n=n, parameter_fabrication=Wrong())


def test_as_fabrication() -> None:
    assert isinstance(as_fabrication(None), Dense)
    assert isinstance(as_fabrication("lorr"), LowRank)
    assert as_fabrication({"name": "lowrank", "r": 3}).to_config() == {"name": "lowrank", "r": 3}
    mine = LowRank(r=2)
    assert as_fabrication(mine) is not mine
    assert as_fabrication(mine).to_config() == fusionkit.create_fabrication("lowrank", r=2).to_config()
    assert isinstance(as_fabrication(Outer()), CallableFabrication)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("lowrang", RegistryError, "lowrank"),
        ({"r": 3}, ConfigError, r"parameter_fabrication should have a name; found \{'r': 3\}"),
        ({"_target_": "os.system"}, ConfigError, r"should select by name; found _target_ 'os\.system'"),
        ({"name": "lowrank", "rank": 3}, ConfigError, r"lowrank should get options among r; found 'rank'"),
        (LowRank, FusionError, "parameter_fabrication should be None, a name"),
        (lambda n, D, w: w, FusionError, "parameter_fabrication should be None, a name"),
        (7, FusionError, r"found 7\.$"),
    ],
)
def test_bad_specs(spec: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=spec)


def test_a_block_must_not_hide_an_attribute() -> None:
    class Clash(Dense):
        def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
            return {"forward": (n, D)}

    with pytest.raises(FusionError, match="should not be attributes of the operator; found 'forward'"):
        ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication=Clash())


def test_copies_are_independent() -> None:
    module = LowRank(r=2)
    assert copy.deepcopy(module).r == 2
    assert isinstance(module, nn.Module)


def test_base_class_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="Fabrication should define shapes"):
        Fabrication().calculate_l(2, 3)


def test_a_foreign_module_should_not_have_parameters() -> None:
    """Nothing would train or save them."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def calculate_l(self, n: int, D: int) -> int:
            return 1

    with pytest.raises(
        FusionError,
        match=r"^parameter_fabrication should .*found a module with its own: inner.weight, "
        r"inner.bias\.$",
    ):
        as_fabrication(Own())
