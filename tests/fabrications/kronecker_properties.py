"""What the Kronecker products share: their numbers of blocks, the rank of W, and how bad numbers are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.errors import FusionError

#: (l, rank, multiply-adds, whether r is possible) of p, q, s, t.
Merit = Callable[[int, int, int, int], tuple[int, int, int, bool]]


def valid(p: int, size: int) -> bool:
    return (p - 1) * -(-size // p) < size


def choice(n: int, D: int, merit: Merit) -> tuple[int, int]:
    """Try all pairs: among those with l within 5 % of the least, the greatest rank, fewest MACs, smallest p."""
    pairs = {}
    for p in range(1, n + 1):
        for q in range(1, D + 1):
            if valid(p, n) and valid(q, D):
                l, rank, macs, possible = merit(p, q, -(-n // p), -(-D // q))
                if possible:
                    pairs[p, q] = l, rank, macs
    least = min(l for l, _, _ in pairs.values())
    near = {pair: entry for pair, entry in pairs.items() if entry[0] * 100 <= least * 105}
    return min(near, key=lambda pair: (-near[pair][1], near[pair][2], pair))


def refuses_blocks(name: str) -> None:
    """For n = 10, p = 6 makes blocks of 2 rows, of which 5 suffice; the next p that needs all of its blocks is 10."""
    for options, found in (
        (
            {"p": 6},
            "p, the number of block rows of {}, should leave none of its blocks without a place in n = 10: "
            "the next valid value is 10, or 5 below it; found 6.",
        ),
        (
            {"q": 4},
            "q, the number of block columns of {}, should leave none of its blocks without a place in D = 9: "
            "the next valid value is 5, or 3 below it; found 4.",
        ),
        ({"p": 11}, "p, the number of block rows of {}, should be from 1 to n = 10; found 11."),
        ({"q": 12}, "q, the number of block columns of {}, should be from 1 to D = 9; found 12."),
    ):
        with pytest.raises(FusionError) as caught:
            fusionkit.create(
                "parameterized_concatenation", n=10, dims=[4, 5], parameter_fabrication={"name": name, **options}
            )
        assert str(caught.value) == found.format(name)
    bad: Any
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(FusionError, match=rf"^p, the number of block rows of {name}, should "):
            fusionkit.create_fabrication(name, p=bad)


def rank_of(name: str, n: int, D: int, **options: Any) -> int:
    made = fusionkit.create_fabrication(name, **options)
    w = torch.randn(made.calculate_l(n, D), dtype=torch.float64)
    return int(torch.linalg.matrix_rank(made.materialize(w, n, D)))


def ways_agree(name: str, **options: Any) -> None:
    """Wide aligned views are multiplied one by one, others after one padded concatenation; both are the definition."""
    for n, dims in ((24, [512, 256, 1024]), (24, [300, 256, 17]), (300, [256, 512])):
        made = fusionkit.create_fabrication(name, **options)
        D = sum(dims)
        w = torch.randn(made.calculate_l(n, D), dtype=torch.float64, requires_grad=True)
        x = [torch.randn(2, 3, width, dtype=torch.float64, requires_grad=True) for width in dims]
        actual = made._project(x, made.split(w, n, D), n)
        expected = torch.cat(x, -1) @ made.materialize(w, n, D).T
        torch.testing.assert_close(actual, expected)
        out = torch.randn_like(expected)
        for found, right in zip(
            torch.autograd.grad(actual, [*x, w], out), torch.autograd.grad(expected, [*x, w], out), strict=True
        ):
            torch.testing.assert_close(found, right)
