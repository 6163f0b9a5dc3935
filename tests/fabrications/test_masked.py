from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrications.masked import Masked
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


@pytest.mark.parametrize(
    ("n", "D", "density", "nnz"),
    [
        (5, 7, 0.1, 4),
        (5, 7, 1.0, 35),
        (5, 7, 1e-9, 1),
        (1, 1, 0.5, 1),
        (1, 5, 0.5, 2),
        (64, 649, 0.1, 4154),
        (3, 3, 1, 9),
    ],
)
def test_against_loops(n: int, D: int, density: float, nnz: int) -> None:
    made = Masked(density)
    assert made.calculate_l(n, D) == nnz
    w = torch.randn(nnz, dtype=torch.float64)
    positions = made._draw_frozen(n, D)["positions"].tolist()
    assert len(set(positions)) == nnz
    assert positions == sorted(positions)
    W = [[0.0] * D for _ in range(n)]
    for position, value in zip(positions, w.tolist(), strict=True):
        W[position // D][position % D] = value
    assert made.materialize(w, n, D).tolist() == W


def test_the_seed_decides_the_positions() -> None:
    drawn = [Masked(seed=seed)._draw_frozen(20, 30)["positions"] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    spread = torch.zeros(600)
    for seed in range(300):
        spread[Masked(seed=seed)._draw_frozen(20, 30)["positions"]] += 1
    assert 10 < spread.min() <= spread.max() < 60  # 30 expected, standard deviation 5.2.


def test_the_positions_are_integers_in_every_dtype_and_the_zeros_stay() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication={"name": "masked", "density": 0.3})
    positions = op.state_dict()["fabrication.positions"].clone()
    assert positions.dtype == torch.int64
    assert [name for name, _ in op.named_parameters()] == ["values"]
    op.half()
    assert torch.equal(op.state_dict()["fabrication.positions"], positions)
    W = op.fabrication.materialize(op.flat_w(), 5, 7)
    assert torch.equal(W.view(-1).nonzero().view(-1), positions)


@pytest.mark.parametrize("density", [0, -0.1, 1.0001, 2])
def test_density_out_of_range(density: float) -> None:
    with pytest.raises(FusionError) as caught:
        Masked(density)
    assert str(caught.value) == (
        f"density, the share of the entries that masked keeps, should be above 0 and at most 1; found {density!r}."
    )


@pytest.mark.parametrize("density", ["0.5", None, True, float("nan")])
def test_bad_density(density: Any) -> None:
    with pytest.raises(FusionError, match=r"^density, the share of the entries that masked keeps, should "):
        Masked(density)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_bad_seed(seed: Any) -> None:
    with pytest.raises(DimsError, match=r"^seed, of the positions of masked, should .*found "):
        Masked(seed=seed)
