from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import fusionkit
from fusionkit.fabrications import _kronecker
from tests.fabrications import kronecker_properties as properties


@pytest.mark.parametrize(
    ("n", "D", "p", "q"), [(6, 12, 2, 3), (7, 11, 3, 4), (5, 3, 5, 1), (1, 1, 1, 1), (64, 13, 8, 13)]
)
def test_against_loops(n: int, D: int, p: int, q: int) -> None:
    s, t = -(-n // p), -(-D // q)
    w = torch.randn(p * q + s * t, dtype=torch.float64)
    A, B = w[: p * q].tolist(), w[p * q :].tolist()
    expected = torch.empty(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            expected[i, j] = A[(i // s) * q + j // t] * B[(i % s) * t + j % t]
    made = fusionkit.create_fabrication("hm", p=p, q=q)
    assert torch.equal(made.materialize(w, n, D), expected)
    assert made.calculate_l(n, D) == len(w)
    assert made.shapes(n, D) == {"A": (p, q), "B": (s, t)}


def test_it_is_torch_kron() -> None:
    made = fusionkit.create_fabrication("kronecker", p=4, q=6)
    w = torch.randn(made.calculate_l(20, 30))
    A, B = w[:24].view(4, 6), w[24:].view(5, 5)
    assert torch.equal(made.materialize(w, 20, 30), torch.kron(A, B))


@pytest.mark.parametrize(("n", "D", "p", "q"), [(64, 64, 8, 8), (32, 96, 4, 6), (16, 64, 2, 16)])
def test_the_rank_is_the_product_of_the_ranks(n: int, D: int, p: int, q: int) -> None:
    """Factors that are multiplied as flat vectors give a matrix of rank 1 to 18 instead."""
    expected = min(p, q) * min(n // p, D // q)
    assert properties.rank_of("kronecker", n, D, p=p, q=q) == expected


@pytest.mark.parametrize(
    ("n", "D"), [(1, 1), (1, 7), (13, 1), (7, 11), (64, 64), (10, 12), (11, 59), (30, 5), (64, 120), (12, 97)]
)
def test_default_blocks_are_the_best_of_all(n: int, D: int) -> None:
    def merit(p: int, q: int, s: int, t: int) -> tuple[int, int, int, bool]:
        return p * q + s * t, min(p, q) * min(s, t), min(D * s + q * n, D * p + n * t), True

    p, q = properties.choice(n, D, merit)
    assert fusionkit.create_fabrication("kronecker").shapes(n, D)["A"] == (p, q)


def test_default_blocks_of_the_digits() -> None:
    made = fusionkit.create_fabrication("kronecker")
    assert made.calculate_l(64, 649) <= 1.05 * (4 * 59 + 16 * 11)
    # The least l alone has ties of rank 2 beside rank 1024.
    p, q = made.shapes(1024, 1024)["A"]
    s, t = made.shapes(1024, 1024)["B"]
    assert min(p, q) * min(s, t) >= 1024


def test_one_number_given() -> None:
    assert fusionkit.create_fabrication("kronecker", p=3).shapes(7, 11)["A"][0] == 3
    assert fusionkit.create_fabrication("kronecker", q=3).shapes(7, 11)["A"][1] == 3


def test_the_choice_depends_on_the_size_asked_for() -> None:
    made = fusionkit.create_fabrication("kronecker")
    first = made.shapes(64, 649)
    assert made.shapes(10, 10) != first
    assert made.shapes(64, 649) == first


def test_bad_numbers_of_blocks() -> None:
    properties.refuses_blocks("kronecker")


def test_both_ways_to_multiply() -> None:
    properties.ways_agree("kronecker")
    properties.ways_agree("kronecker", p=2, q=7)  # A first
    properties.ways_agree("kronecker", p=12, q=4)  # B first


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 64, 97, 649])
def test_valid_numbers(size: int) -> None:
    expected = tuple(p for p in range(1, size + 1) if (p - 1) * -(-size // p) < size)
    assert _kronecker.counts(size) == expected


@pytest.mark.parametrize("size", [2**20 + 7, 10**9 + 7, 10**15 + 37])
def test_of_a_great_size_some_valid_numbers(size: int) -> None:
    found = _kronecker.counts(size)
    assert (found[0], found[-1]) == (1, size)
    assert len(found) <= _kronecker.TRIED + 1
    assert all((p - 1) * -(-size // p) < size for p in found)
    assert max(b / a for a, b in pairwise(found[: len(found) // 2])) <= 2


@pytest.mark.parametrize(
    ("p", "sizes", "nearest"),
    [
        (7, [10], "10, or 5 below it"),
        (9, [10, 12], "4, below it"),
        (10**9, [10**15 + 37], "1000000001, or 999999001 below it"),
        (10**14, [10**15 + 37, 2 * 10**15 + 1], "25000000000001, below it"),
    ],
)
def test_valid_numbers_nearby(p: int, sizes: list[int], nearest: str) -> None:
    assert _kronecker.nearest_counts(p, sizes) == nearest


def test_the_norm_needs_no_W() -> None:
    made = fusionkit.create_fabrication("kronecker")
    w = torch.empty(made.calculate_l(10**5, 10**6))
    made.init_(w, 10**5, 10**6, torch.Generator().manual_seed(0))  # W would have 4e11 bytes
    blocks = made.split(w, 10**5, 10**6)
    assert made._squared_norm(blocks, 10**5, 10**6).item() == pytest.approx(10**5, rel=1e-3)
