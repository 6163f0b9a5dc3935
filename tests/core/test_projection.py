"""A fabricated matrix of an operator's own: values, sizes, initial values, seeds, and operators that have several."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusionkit
from fusionkit import Projection
from fusionkit.fabrication import Fabrication

SPECS: list[Any] = [
    None,
    "lowrank",
    {"name": "kronecker"},
    {"name": "view_lowrank", "r": 2},
    "random_matrix_adaption",
    "masked",
    "constant_eye",
]


class Pairs(fusionkit.Fusion):
    """`(P_1 x_1 + p) ∘ (P_2 x_2 + q)`, two fabricated matrices."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        name: str | None = None,
        require_parameters: bool = True,
        *,
        parameter_fabrication: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(n, dims, name, require_parameters, device=device, dtype=dtype)
        self.parameter_fabrication = parameter_fabrication
        if self.dims is not None:
            self.parts = nn.ModuleList(
                Projection(self.calculate_n(), [width], parameter_fabrication, index=i, **self._factory)
                for i, width in enumerate(self.dims)
            )
            self.reset_parameters()

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        if self.n is None or len(self.resolve_dims(dims)) != 2:
            raise fusionkit.DimsError("n and two views should be given.")
        return self.n

    def calculate_l(self) -> int:
        n, made = self.calculate_n(), self.parameter_fabrication
        return sum(Projection.size(n, [width], made) for width in self.resolve_dims())

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for part in self.parts:
            part.reset_parameters(generator)  # type: ignore[operator]

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first, second = self.parts
        return first(x[:1]) * second(x[1:])  # type: ignore[no-any-return]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dims", [[6], [4, 5]], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_values_and_size(spec: Any, dims: list[int], bias: bool) -> None:
    torch.manual_seed(0)
    module = Projection(7, dims, spec, bias=bias, dtype=torch.float64)
    module.reset_parameters()
    if module.bias is not None:
        nn.init.normal_(module.bias)
    views = [torch.randn(3, width, dtype=torch.float64) for width in dims]
    W = module.matrix(views[0])
    assert W.shape == (7, sum(dims))
    assert W.dtype == torch.float64
    expected = torch.cat(views, -1) @ W.T + (0 if module.bias is None else module.bias)
    torch.testing.assert_close(module(views), expected)
    assert Projection.size(7, dims, spec, bias=bias) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec != "constant_eye"], ids=str)
def test_initial_values(spec: Any, gain: float) -> None:
    module = Projection(24, [30], spec, dtype=torch.float64)
    nn.init.ones_(module.bias) if module.bias is not None else None
    module.reset_parameters(torch.Generator().manual_seed(0), gain=gain)
    W = module.matrix(torch.empty(0, dtype=torch.float64))
    assert W.square().mean().item() == pytest.approx(gain**2 / 30)
    assert module.bias is not None
    assert not module.bias.any()


def test_frozen_parts_follow_the_index() -> None:
    made = {"name": "random_matrix_adaption", "seed": 3}
    first, same, second = (Projection(5, [4], made, index=index) for index in (0, 0, 1))
    given = [module.fabrication for module in (first, same, second)]
    assert torch.equal(given[0].get_buffer("A"), given[1].get_buffer("A"))
    assert not torch.equal(given[0].get_buffer("A"), given[2].get_buffer("A"))
    assert given[2].to_config() == {"name": "random_matrix_adaption", "seed": 4}
    shared = fusionkit.create_fabrication("masked", seed=7)
    Projection(5, [4], shared, index=2)
    assert shared.seed == 7


def test_names_of_blocks() -> None:
    class Clash(Fabrication):
        """A matrix whose block is called as an attribute."""

        def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
            return {"dims": (n, D)}

    with pytest.raises(fusionkit.FusionError, match=r"should not be attributes of the operator; found 'dims'\.$"):
        Projection(3, [4], Clash())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_an_operator_with_several(spec: Any) -> None:
    torch.manual_seed(0)
    op = Pairs(5, [4, 6], parameter_fabrication=spec, dtype=torch.float64)
    views = [torch.randn(3, width, dtype=torch.float64) for width in (4, 6)]
    other = copy.deepcopy(op)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(op(views, w=other.flat_w()), other(views))
    bare = Pairs(5, [4, 6], parameter_fabrication=spec, require_parameters=False, dtype=torch.float64)
    assert list(bare.parameters()) == []
    torch.testing.assert_close(bare(views, w=other.flat_w()), other(views))


def test_the_kit_accepts_it() -> None:
    report = fusionkit.check(
        Pairs(5, [4, 6], parameter_fabrication="monarch"),
        tier=1,
        select=[
            "l_pure",
            "external_w",
            "all_parameters_get_grad",
            "gradcheck",
            "meta_to_empty",
            "seeding",
            "state_dict",
        ],
    )
    assert report.ok, report
