from __future__ import annotations

from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.errors import DimsError, FusionError
from tests.fabrications import kronecker_properties as properties


@pytest.mark.parametrize(("n", "D", "r"), [(5, 7, 2), (1, 1, 1), (4, 3, 3), (11, 2, 1)])
def test_against_loops(n: int, D: int, r: int) -> None:
    w = torch.randn(2 * r * (n + D), dtype=torch.float64)
    B1, A1, B2, A2 = (piece.tolist() for piece in w.split([n * r, r * D, n * r, r * D]))
    expected = torch.empty(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            first = sum(B1[i * r + c] * A1[c * D + j] for c in range(r))
            second = sum(B2[i * r + c] * A2[c * D + j] for c in range(r))
            expected[i, j] = first * second
    made = fusionkit.create_fabrication("loha", r=r)
    torch.testing.assert_close(made.materialize(w, n, D), expected)
    assert made.calculate_l(n, D) == len(w)
    assert made.shapes(n, D) == {"B1": (n, r), "A1": (r, D), "B2": (n, r), "A2": (r, D)}


def test_the_rank_is_squared() -> None:
    assert properties.rank_of("khatri_rao", 40, 50, r=5) == 25


def test_by_default_as_many_parameters_as_lowrank() -> None:
    assert fusionkit.create_fabrication("khatri_rao").calculate_l(64, 649) == 8 * (64 + 649)
    assert fusionkit.create_fabrication("khatri_rao").shapes(2, 9)["B1"] == (2, 2)


@pytest.mark.parametrize("r", [2, 5])
def test_the_norm_with_and_without_W(r: int) -> None:
    """r^2 below and above min(n, D)."""
    made = fusionkit.create_fabrication("khatri_rao", r=r)
    w = torch.randn(made.calculate_l(9, 14), dtype=torch.float64)
    norm = made._squared_norm(made.split(w, 9, 14), 9, 14)
    torch.testing.assert_close(norm, made.materialize(w, 9, 14).square().sum())


@pytest.mark.parametrize("r", [0, 1.5, "2", True])
def test_bad_rank(r: Any) -> None:
    with pytest.raises(DimsError, match=r"^r, the rank of khatri_rao, should .*found "):
        fusionkit.create_fabrication("khatri_rao", r=r)


def test_rank_out_of_range_is_refused_by_the_operator() -> None:
    with pytest.raises(FusionError) as caught:
        fusionkit.create(
            "parameterized_concatenation", n=5, dims=[3, 4], parameter_fabrication={"name": "loha", "r": 6}
        )
    assert str(caught.value) == (
        "r, the rank of khatri_rao, should be from 1 to min(n, D) = 5 for n = 5 and D = 7; found 6."
    )
