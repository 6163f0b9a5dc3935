from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError
from fusionkit.fabrications.hypernet import Hypernet
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


def leaky(value: float) -> float:
    return value if value > 0 else 0.2 * value


@pytest.mark.parametrize(("n", "D", "l", "h"), [(1, 1, 1, 1), (5, 7, 3, 2), (7, 5, 2, 9)])
def test_against_loops(n: int, D: int, l: int, h: int) -> None:
    made = Hypernet(l=l, h=h, seed=3)
    parts = {name: part.double().tolist() for name, part in made._draw_frozen(n, D).items()}
    H, A, B = parts["H"], parts["A"], parts["B"]
    w = torch.randn(l, dtype=torch.float64)
    hidden = [leaky(sum(float(w[i]) * H[i][k] for i in range(l))) for k in range(h)]
    W = [[sum(A[i][k] * hidden[k] * B[k][j] for k in range(h)) for j in range(D)] for i in range(n)]
    torch.testing.assert_close(made.materialize(w, n, D), torch.tensor(W, dtype=torch.float64))
    assert made.shapes(n, D) == {"w": (l,)}
    assert made.calculate_l(n, D) == l


def test_default_length() -> None:
    assert Hypernet().calculate_l(1, 1) == Hypernet().calculate_l(1000, 4000) == 64
    assert Hypernet(l=7).frozen_shapes(2, 3) == {"H": (7, 7), "A": (2, 7), "B": (7, 3)}


def test_the_network_is_there_from_construction_on_and_never_a_parameter() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication="hypernet")
    assert [name for name, _ in op.named_parameters()] == ["w"]
    keys = ["w", "fabrication.H", "fabrication.A", "fabrication.B"]
    assert list(op.state_dict()) == keys
    op([torch.randn(2, 3), torch.randn(2, 4)])
    assert list(op.state_dict()) == keys


def test_the_frozen_scale_gives_unit_parameters() -> None:
    op = ParameterizedConcatenation(dims=[300, 349], n=64, parameter_fabrication="hypernet")
    assert 0.5 < op.flat_w().square().mean() < 4


def test_a_parameter_has_a_gradient_also_where_every_unit_is_below_zero() -> None:
    made = Hypernet(l=1, h=1)
    for value in (-1.0, 1.0):
        w = torch.tensor([value], requires_grad=True)
        assert torch.autograd.grad(made.materialize(w, 2, 3).square().sum(), w)[0].abs() > 1e-6


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
def test_bad_options(value: Any) -> None:
    with pytest.raises(DimsError, match=r"^l, the number of parameters of the hypernet, should "):
        Hypernet(l=value)
    with pytest.raises(DimsError, match=r"^h, the number of hidden units of the hypernet, should "):
        Hypernet(h=value)
