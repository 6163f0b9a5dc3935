from __future__ import annotations

from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.errors import DimsError
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation

FABRICATIONS: list[Any] = [None, "dense", {"name": "lowrank", "r": 2}]


@pytest.mark.parametrize("fabrication", FABRICATIONS, ids=str)
@pytest.mark.parametrize(("n", "dims"), [(2, [5]), (5, [3, 1, 7]), (2, [2, 2]), (7, [2, 1])])
@pytest.mark.parametrize("lead", [(), (0,), (5,), (2, 3)])
def test_against_a_loop(fabrication: Any, n: int, dims: list[int], lead: tuple[int, ...]) -> None:
    op = ParameterizedConcatenation(n, dims, parameter_fabrication=fabrication, dtype=torch.float64)
    x = [torch.randn(*lead, width, dtype=torch.float64, requires_grad=True) for width in dims]
    W = op.fabrication.materialize(op.flat_w(), n, sum(dims))
    expected = torch.zeros(*lead, n, dtype=torch.float64)
    columns = [view[..., j] for view in x for j in range(view.shape[-1])]
    for i in range(n):
        for j, column in enumerate(columns):
            expected[..., i] = expected[..., i] + W[i, j] * column
    torch.testing.assert_close(op(x), expected)
    assert op.calculate_l() == sum(p.numel() for p in op.parameters())
    assert torch.autograd.gradcheck(lambda *views: op(views), x, check_forward_ad=True)


def test_blocks_are_parameters_in_their_natural_shape() -> None:
    dense = ParameterizedConcatenation(5, [3, 4])
    assert {name: tuple(p.shape) for name, p in dense.named_parameters()} == {"weight": (5, 7)}
    lowrank = ParameterizedConcatenation(5, [3, 4], parameter_fabrication={"name": "lowrank", "r": 2})
    assert {name: tuple(p.shape) for name, p in lowrank.named_parameters()} == {"A": (5, 2), "B": (2, 7)}


def test_n() -> None:
    assert ParameterizedConcatenation(dims=[4, 4]).n == 4
    assert ParameterizedConcatenation(dims=[4, 4]).calculate_n([6, 6]) == 6
    assert ParameterizedConcatenation(n=5, dims=[4, 4]).calculate_n([6, 7]) == 5
    assert ParameterizedConcatenation(n=5).calculate_n() == 5
    for call in (
        lambda: ParameterizedConcatenation(dims=[4, 3]),
        lambda: ParameterizedConcatenation().calculate_n([4, 3]),
    ):
        with pytest.raises(DimsError) as caught:
            call()
        assert str(caught.value) == (
            "parameterized_concatenation should get n, or views of equal width; found dims [4, 3]."
        )
    with pytest.raises(DimsError, match="found neither n nor dims"):
        ParameterizedConcatenation().calculate_n()


def test_l_needs_dims_and_n() -> None:
    for op in (ParameterizedConcatenation(), ParameterizedConcatenation(n=4)):
        with pytest.raises(ValueError, match="should"):
            op.calculate_l()
    assert ParameterizedConcatenation(n=64, dims=[76, 216, 64, 240, 47, 6]).calculate_l() == 41536


def test_init_keeps_the_variance() -> None:
    for fabrication in FABRICATIONS:
        op = ParameterizedConcatenation(64, [100, 300], parameter_fabrication=fabrication)
        x = [torch.randn(500, 100), torch.randn(500, 300)]
        assert 0.5 < op(x).var().item() < 2


def test_init_follows_the_generator() -> None:
    op = ParameterizedConcatenation(5, [3, 4], parameter_fabrication="lowrank")
    before = torch.get_rng_state()
    op.reset_parameters(torch.Generator().manual_seed(5))
    first = op.flat_w().detach().clone()
    assert torch.equal(torch.get_rng_state(), before)
    op.reset_parameters(torch.Generator().manual_seed(5))
    assert torch.equal(op.flat_w(), first)
    op.reset_parameters(torch.Generator().manual_seed(6))
    assert not torch.equal(op.flat_w(), first)


def test_fold_gives_an_equal_dense_operator() -> None:
    op: Any = fusionkit.create(
        "parameterized_concatenation",
        n=5,
        dims=[3, 4],
        parameter_fabrication="lowrank",
        preprocess="layer_norm",
        dtype="float64",
    ).eval()
    folded = op.fold()
    x = [torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)]
    torch.testing.assert_close(folded(x), op(x))
    assert isinstance(folded, ParameterizedConcatenation)
    assert folded.calculate_l() == 35
    assert not folded.training
    with torch.no_grad():
        folded.get_parameter("weight").zero_()
    assert op(x).abs().sum() > 0


def test_training_reduces_the_loss() -> None:
    op = ParameterizedConcatenation(2, [3, 4], parameter_fabrication={"name": "lowrank", "r": 2})
    x, target = [torch.randn(50, 3), torch.randn(50, 4)], torch.randn(50, 2)
    optimizer = torch.optim.AdamW(op.parameters(), lr=0.05)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = (op(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("fabrication", FABRICATIONS, ids=str)
def test_compiles_whole(fabrication: Any) -> None:
    op = ParameterizedConcatenation(5, [3, 4], parameter_fabrication=fabrication)
    x = [torch.randn(6, 3), torch.randn(6, 4)]
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), op(x))
