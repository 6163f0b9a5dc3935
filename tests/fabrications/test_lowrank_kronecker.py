from __future__ import annotations

import pytest
import torch

import fusionkit
from fusionkit.errors import FusionError
from tests.fabrications import kronecker_properties as properties


@pytest.mark.parametrize(
    ("n", "D", "r", "p", "q"), [(6, 12, 2, 2, 3), (7, 11, 3, 2, 3), (5, 3, 1, 5, 1), (1, 1, 1, 1, 1), (13, 29, 2, 4, 5)]
)
def test_against_loops(n: int, D: int, r: int, p: int, q: int) -> None:
    s, t = -(-n // p), -(-D // q)
    w = torch.randn(p * q + r * (s + t), dtype=torch.float64)
    A, S, T = (piece.tolist() for piece in w.split([p * q, s * r, r * t]))
    expected = torch.zeros(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            for c in range(r):
                expected[i, j] += A[(i // s) * q + j // t] * S[(i % s) * r + c] * T[c * t + j % t]
    made = fusionkit.create_fabrication("lphm", r=r, p=p, q=q)
    torch.testing.assert_close(made.materialize(w, n, D), expected)
    assert made.calculate_l(n, D) == len(w)
    assert made.shapes(n, D) == {"A": (p, q), "S": (s, r), "T": (r, t)}


def test_the_rank_is_the_product_of_the_ranks() -> None:
    assert properties.rank_of("lowrank_kronecker", 64, 64, r=3, p=8, q=8) == 24


@pytest.mark.parametrize(("n", "D", "r"), [(10, 12, 2), (64, 97, 8), (11, 59, 1), (30, 5, 3), (13, 13, 13)])
def test_default_blocks_are_the_best_of_all(n: int, D: int, r: int) -> None:
    def merit(p: int, q: int, s: int, t: int) -> tuple[int, int, int, bool]:
        return p * q + r * (s + t), min(p, q) * min(s, t, r), r * (D + p * q + n), r <= min(s, t)

    p, q = properties.choice(n, D, merit)
    assert fusionkit.create_fabrication("lowrank_kronecker", r=r).shapes(n, D)["A"] == (p, q)


@pytest.mark.parametrize(("n", "D", "r"), [(64, 649, 8), (3, 50, 3), (50, 2, 2), (1, 1, 1)])
def test_default_rank(n: int, D: int, r: int) -> None:
    assert fusionkit.create_fabrication("lowrank_kronecker").shapes(n, D)["T"][0] == r


def test_both_ways_to_multiply() -> None:
    properties.ways_agree("lowrank_kronecker")
    properties.ways_agree("lowrank_kronecker", r=2, p=3, q=7)


def test_bad_numbers_of_blocks() -> None:
    properties.refuses_blocks("lowrank_kronecker")


def test_bad_rank() -> None:
    with pytest.raises(FusionError) as caught:
        fusionkit.create(
            "parameterized_concatenation",
            n=8,
            dims=[2, 4],
            parameter_fabrication={"name": "lowrank_kronecker", "r": 4, "q": 2},
        )
    assert str(caught.value) == (
        "r, the rank of lowrank_kronecker, should be from 1 to 3 for n = 8, D = 6, q = 2; found 4."
    )
    with pytest.raises(FusionError, match=r"^r, the rank of lowrank_kronecker, should "):
        fusionkit.create_fabrication("lowrank_kronecker", r=0)
