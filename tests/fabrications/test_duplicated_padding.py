from __future__ import annotations

import pytest
import torch

import fusionkit
from tests.fabrications import kronecker_properties as properties


@pytest.mark.parametrize(
    ("n", "D", "p", "q"), [(6, 12, 2, 3), (7, 11, 3, 4), (5, 3, 5, 1), (1, 1, 1, 1), (64, 13, 8, 13)]
)
def test_against_loops(n: int, D: int, p: int, q: int) -> None:
    s, t = -(-n // p), -(-D // q)
    w = torch.randn(s * t, dtype=torch.float64)
    expected = torch.empty(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            expected[i, j] = w[(i % s) * t + j % t]
    made = fusionkit.create_fabrication("duplicated_padding", p=p, q=q)
    assert torch.equal(made.materialize(w, n, D), expected)
    assert made.calculate_l(n, D) == len(w)
    assert made.shapes(n, D) == {"B": (s, t)}


@pytest.mark.parametrize(("n", "D", "shape"), [(64, 649, (32, 325)), (1, 9, (1, 5)), (9, 1, (5, 1)), (1, 1, (1, 1))])
def test_two_copies_either_way_by_default(n: int, D: int, shape: tuple[int, int]) -> None:
    assert fusionkit.create_fabrication("duplicated_padding").shapes(n, D) == {"B": shape}


def test_bad_numbers_of_blocks() -> None:
    properties.refuses_blocks("duplicated_padding")
