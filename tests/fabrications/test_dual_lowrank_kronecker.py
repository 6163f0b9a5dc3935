from __future__ import annotations

import pytest
import torch

import fusionkit
from fusionkit.errors import FusionError
from tests.fabrications import kronecker_properties as properties


@pytest.mark.parametrize(
    ("n", "D", "r", "p", "q"), [(6, 12, 2, 2, 3), (7, 11, 1, 3, 4), (5, 3, 1, 5, 1), (1, 1, 1, 1, 1), (13, 29, 3, 4, 5)]
)
def test_against_loops(n: int, D: int, r: int, p: int, q: int) -> None:
    s, t = -(-n // p), -(-D // q)
    w = torch.randn(r * (p + q + s + t), dtype=torch.float64)
    P, Q, S, T = (piece.tolist() for piece in w.split([p * r, r * q, s * r, r * t]))
    expected = torch.zeros(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            left = sum(P[(i // s) * r + c] * Q[c * q + j // t] for c in range(r))
            right = sum(S[(i % s) * r + c] * T[c * t + j % t] for c in range(r))
            expected[i, j] = left * right
    made = fusionkit.create_fabrication("dual_lphm", r=r, p=p, q=q)
    torch.testing.assert_close(made.materialize(w, n, D), expected)
    assert made.calculate_l(n, D) == len(w)
    assert made.shapes(n, D) == {"P": (p, r), "Q": (r, q), "S": (s, r), "T": (r, t)}


def test_the_rank_is_the_product_of_the_ranks() -> None:
    assert properties.rank_of("dual_lowrank_kronecker", 64, 64, r=3, p=8, q=8) == 9


@pytest.mark.parametrize(("n", "D", "r"), [(10, 12, 2), (64, 97, 8), (11, 59, 1), (30, 9, 3)])
def test_default_blocks_are_the_best_of_all(n: int, D: int, r: int) -> None:
    def merit(p: int, q: int, s: int, t: int) -> tuple[int, int, int, bool]:
        macs = r * (D + n) + r * r * (p + q)
        return r * (p + q + s + t), min(p, q, r) * min(s, t, r), macs, r <= min(p, q, s, t)

    p, q = properties.choice(n, D, merit)
    shapes = fusionkit.create_fabrication("dual_lowrank_kronecker", r=r).shapes(n, D)
    assert (shapes["P"][0], shapes["Q"][1]) == (p, q)


@pytest.mark.parametrize(("n", "D", "r"), [(64, 649, 8), (9, 50, 3), (50, 2, 1), (1, 1, 1), (3, 3, 2)])
def test_default_rank(n: int, D: int, r: int) -> None:
    """The greatest up to 8 for which both n and D have a pair of numbers of at least that: p*s >= n, q*t >= D."""
    assert fusionkit.create_fabrication("dual_lowrank_kronecker").shapes(n, D)["T"][0] == r


def test_both_ways_to_multiply() -> None:
    properties.ways_agree("dual_lowrank_kronecker")
    properties.ways_agree("dual_lowrank_kronecker", r=2, p=3, q=7)


def test_bad_numbers_of_blocks() -> None:
    properties.refuses_blocks("dual_lowrank_kronecker")


def test_bad_rank() -> None:
    with pytest.raises(FusionError) as caught:
        fusionkit.create(
            "parameterized_concatenation",
            n=8,
            dims=[2, 4],
            parameter_fabrication={"name": "dual_lowrank_kronecker", "r": 3},
        )
    assert str(caught.value) == (
        "r, the rank of dual_lowrank_kronecker, should be from 1 to 2 for n = 8, D = 6; found 3."
    )
    with pytest.raises(FusionError, match=r"^r, the rank of dual_lowrank_kronecker, should "):
        fusionkit.create_fabrication("dual_lowrank_kronecker", r=0)
