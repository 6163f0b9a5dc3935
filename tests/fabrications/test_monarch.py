from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrications.monarch import Monarch
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


@pytest.mark.parametrize(
    ("n", "D", "nb"), [(1, 1, 1), (5, 7, 1), (5, 7, 2), (5, 7, 3), (7, 5, 3), (8, 8, 4), (6, 12, 6), (11, 23, 3)]
)
def test_against_loops(n: int, D: int, nb: int) -> None:
    ib, ob = (D + nb - 1) // nb, (n + nb - 1) // nb
    c = min(ib, ob)
    w = torch.randn(nb * c * (ib + ob), dtype=torch.float64)
    R = w[: nb * c * ib].tolist()
    L = w[nb * c * ib :].tolist()
    W = [[0.0] * D for _ in range(n)]
    for i in range(n):
        for j in range(D):
            for t in range(c):
                # Row t of what block i // ob of L reads is entry t*nb + i // ob of blockdiag(R) x.
                k, u = divmod(t * nb + i // ob, c)
                if k == j // ib:
                    W[i][j] += L[((i // ob) * ob + i % ob) * c + t] * R[(k * c + u) * ib + j % ib]
    made = Monarch(nb=nb)
    torch.testing.assert_close(made.materialize(w, n, D), torch.tensor(W, dtype=torch.float64))
    assert made.shapes(n, D) == {"R": (nb, c, ib), "L": (nb, ob, c)}
    assert made.calculate_l(n, D) == len(w)


@pytest.mark.parametrize(("n", "D"), [(64, 649), (16, 16), (59, 61), (5, 100), (1, 9), (100, 3)])
def test_by_default_every_output_depends_on_every_input(n: int, D: int) -> None:
    made = Monarch()
    nb = made.block_count(n, D)
    assert nb * nb <= min(n, D)
    W = made.materialize(torch.rand(made.calculate_l(n, D)), n, D)
    assert (W > 0).all()
    assert torch.linalg.matrix_rank(W.double()) == min(n, D)


def test_the_default_number_of_blocks_leaves_none_empty() -> None:
    assert Monarch().block_count(64, 649) == 8
    for n in range(1, 300):
        for D in (n, n + 1, 3 * n + 1):
            nb = Monarch().block_count(n, D)
            assert nb * nb <= n < (nb + 1) ** 2
            assert all((nb - 1) * -(-size // nb) < size for size in (n, D))


def test_many_blocks_leave_zeros() -> None:
    W = Monarch(nb=4).materialize(torch.rand(Monarch(nb=4).calculate_l(4, 8)), 4, 8)
    assert ((W != 0).sum(1) == 2).all()


PLACE = "leave none of its blocks without a place in"


@pytest.mark.parametrize(
    ("n", "dims", "nb", "wanted"),
    [
        (5, [3, 4], 6, "be from 1 to min(n, D) = 5"),
        (5, [3, 4], 4, f"{PLACE} n = 5 and D = 7: the next valid value is 3, below it"),
        (16, [7, 9], 5, f"{PLACE} n = 16 and D = 16: the next valid value is 6, or 4 below it"),
    ],
)
def test_number_of_blocks_out_of_range_is_refused_by_the_operator(
    n: int, dims: list[int], nb: int, wanted: str
) -> None:
    with pytest.raises(FusionError) as caught:
        ParameterizedConcatenation(n, dims, parameter_fabrication={"name": "monarch", "nb": nb})
    assert str(caught.value) == f"nb, the number of blocks of monarch, should {wanted}; found {nb}."


@pytest.mark.parametrize("nb", [0, -1, 2.5, "8", True])
def test_bad_number_of_blocks(nb: Any) -> None:
    with pytest.raises(DimsError, match=r"^nb, the number of blocks of monarch, should .*found "):
        Monarch(nb=nb)
