from __future__ import annotations

import pytest
import torch

import fusionkit
from fusionkit.errors import DimsError, FusionError


@pytest.mark.parametrize(("n", "D", "p"), [(6, 12, 2), (7, 11, 3), (5, 3, 1), (1, 1, 1), (12, 16, 4), (5, 5, 5)])
def test_against_loops(n: int, D: int, p: int) -> None:
    s, t = -(-n // p), -(-D // p)
    w = torch.randn(s * t, dtype=torch.float64)
    expected = torch.zeros(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            if i // s == j // t:
                expected[i, j] = w[(i % s) * t + j % t]
    made = fusionkit.create_fabrication("duplicated_diagonal_padding", p=p)
    assert torch.equal(made.materialize(w, n, D), expected)
    assert made.calculate_l(n, D) == len(w)
    assert made.shapes(n, D) == {"B": (s, t)}
    assert expected.any(0).all()
    assert expected.any(1).all()


@pytest.mark.parametrize(("n", "D", "shape"), [(64, 649, (32, 325)), (1, 9, (1, 9)), (9, 1, (9, 1))])
def test_two_blocks_by_default(n: int, D: int, shape: tuple[int, int]) -> None:
    assert fusionkit.create_fabrication("block_diagonal").shapes(n, D) == {"B": shape}


@pytest.mark.parametrize(
    ("n", "dims", "p", "message"),
    [
        (
            10,
            [6, 6],
            6,
            "should leave none of its blocks without a place in n = 10 and D = 12: "
            "the next valid value is 4, below it; found 6.",
        ),
        (
            20,
            [6, 6],
            5,
            "should leave none of its blocks without a place in n = 20 and D = 12: "
            "the next valid value is 4, below it; found 5.",
        ),
        (
            7,
            [8],
            5,
            "should leave none of its blocks without a place in n = 7 and D = 8: "
            "the next valid value is 4, below it; found 5.",
        ),
        (
            9,
            [9],
            4,
            "should leave none of its blocks without a place in n = 9 and D = 9: "
            "the next valid value is 5, or 3 below it; found 4.",
        ),
        (10, [3, 4], 8, "should be from 1 to min(n, D) = 7; found 8."),
    ],
)
def test_bad_numbers_of_blocks(n: int, dims: list[int], p: int, message: str) -> None:
    with pytest.raises(FusionError) as caught:
        fusionkit.create(
            "parameterized_concatenation", n=n, dims=dims, parameter_fabrication={"name": "block_diagonal", "p": p}
        )
    assert str(caught.value) == f"p, the number of blocks of block_diagonal, {message}"


def test_not_a_number_of_blocks() -> None:
    with pytest.raises(DimsError, match=r"^p, the number of blocks of block_diagonal, should "):
        fusionkit.create_fabrication("block_diagonal", p=0)
