from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError
from fusionkit.fabrications.random_matrix_hypernet import RandomMatrixHypernet
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


@pytest.mark.parametrize(("n", "D", "l", "h", "hidden"), [(1, 1, 1, 1, 1), (5, 7, 3, 2, 4), (7, 5, 2, 9, 3)])
def test_against_loops(n: int, D: int, l: int, h: int, hidden: int) -> None:
    made = RandomMatrixHypernet(l=l, h=h, hidden=hidden, seed=3)
    parts = {name: part.double().tolist() for name, part in made._draw_frozen(n, D).items()}
    P, Q, S, A, B = (parts[name] for name in "PQSAB")
    w = torch.randn(l, dtype=torch.float64).tolist()
    inner = [sum(w[i] * P[i][k] for i in range(l)) for k in range(h)]
    units = [sum(inner[k] * Q[k][u] for k in range(h)) for u in range(hidden)]
    units = [unit if unit > 0 else 0.2 * unit for unit in units]
    outer = [sum(units[u] * S[u][k] for u in range(hidden)) for k in range(h)]
    W = [[sum(A[i][k] * outer[k] * B[k][j] for k in range(h)) for j in range(D)] for i in range(n)]
    W_found = made.materialize(torch.tensor(w, dtype=torch.float64), n, D)
    torch.testing.assert_close(W_found, torch.tensor(W, dtype=torch.float64))
    assert made.shapes(n, D) == {"w": (l,)}


def test_the_random_matrices_are_buffers_that_survive_a_reload() -> None:
    x = [torch.randn(2, 3), torch.randn(2, 4)]
    torch.manual_seed(1)
    op = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication={"name": "random_matrix_hypernet", "l": 6})
    assert {key.removeprefix("fabrication.") for key in op.state_dict()} == {"w", "P", "Q", "S", "A", "B"}
    expected = op(x)
    torch.manual_seed(2)
    again = ParameterizedConcatenation(
        dims=[3, 4], n=5, parameter_fabrication={"name": "random_matrix_hypernet", "l": 6, "seed": 9}
    )
    assert not torch.equal(again(x, w=op.flat_w()), expected)
    again.load_state_dict(op.state_dict())
    assert torch.equal(again(x), expected)


def test_the_frozen_scale_gives_unit_parameters() -> None:
    op = ParameterizedConcatenation(dims=[300, 349], n=64, parameter_fabrication="random_matrix_hypernet")
    assert 0.5 < op.flat_w().square().mean() < 4


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
def test_bad_number_of_units(value: Any) -> None:
    with pytest.raises(DimsError, match=r"^hidden, the number of hidden units of random_matrix_hypernet, should "):
        RandomMatrixHypernet(hidden=value)
