from __future__ import annotations

from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.errors import FusionError
from tests.fabrications import kronecker_properties as properties


@pytest.mark.parametrize(
    ("n", "D", "R", "p", "q"), [(6, 12, 2, 2, 3), (7, 11, 3, 3, 4), (5, 3, 1, 5, 1), (1, 1, 1, 1, 1), (4, 9, 4, 2, 2)]
)
def test_against_loops(n: int, D: int, R: int, p: int, q: int) -> None:
    s, t = -(-n // p), -(-D // q)
    w = torch.randn(R * (p * q + s * t), dtype=torch.float64)
    numbers = w.tolist()
    expected = torch.zeros(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            for r in range(R):
                a = numbers[r * p * q + (i // s) * q + j // t]
                expected[i, j] += a * numbers[R * p * q + r * s * t + (i % s) * t + j % t]
    made = fusionkit.create_fabrication("phm", R=R, p=p, q=q)
    torch.testing.assert_close(made.materialize(w, n, D), expected)
    assert made.calculate_l(n, D) == len(w)
    assert made.shapes(n, D) == {"A": (R, p, q), "B": (R, s, t)}


def test_one_term_is_kronecker() -> None:
    made, single = (fusionkit.create_fabrication("kronecker_sum", R=1), fusionkit.create_fabrication("kronecker"))
    w = torch.randn(made.calculate_l(13, 29))
    torch.testing.assert_close(made.materialize(w, 13, 29), single.materialize(w, 13, 29))


def test_terms_raise_the_rank() -> None:
    """With p = n and q = 1 a term is a column times a row."""
    assert properties.rank_of("kronecker_sum", 12, 20, R=1, p=12, q=1) == 1
    assert properties.rank_of("kronecker_sum", 12, 20, R=3, p=12, q=1) == 3


def test_enough_terms_make_any_matrix() -> None:
    n, D = 4, 6
    made = fusionkit.create_fabrication("kronecker_sum", R=4, p=2, q=2)
    w = torch.randn(made.calculate_l(n, D), dtype=torch.float64)
    jacobian: Any = torch.func.jacrev(lambda w: made.materialize(w, n, D))(w)
    assert torch.linalg.matrix_rank(jacobian.flatten(0, 1)) == n * D


def test_default_number_of_terms() -> None:
    made = fusionkit.create_fabrication("kronecker_sum")
    assert made.shapes(64, 649)["A"][0] == 4
    assert made.shapes(1, 1)["A"][0] == 1
    assert made.shapes(64, 649)["A"][1:] == fusionkit.create_fabrication("kronecker").shapes(64, 649)["A"]


def test_both_ways_to_multiply() -> None:
    properties.ways_agree("kronecker_sum")
    properties.ways_agree("kronecker_sum", R=3, p=2, q=7)  # A first
    properties.ways_agree("kronecker_sum", R=2, p=12, q=4)  # B first


def test_bad_numbers_of_blocks() -> None:
    properties.refuses_blocks("kronecker_sum")


def test_too_many_terms() -> None:
    with pytest.raises(FusionError) as caught:
        fusionkit.create(
            "parameterized_concatenation",
            n=4,
            dims=[2, 4],
            parameter_fabrication={"name": "kronecker_sum", "R": 5, "p": 2, "q": 2},
        )
    assert str(caught.value) == (
        "R, the rank of kronecker_sum, should be from 1 to 4 for n = 4, D = 6, p = 2, q = 2; found 5."
    )
    with pytest.raises(FusionError, match=r"^R, the number of terms of kronecker_sum, should "):
        fusionkit.create_fabrication("kronecker_sum", R=0)
