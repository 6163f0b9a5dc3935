from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrications import block_circulant
from fusionkit.fabrications.block_circulant import BlockCirculant, from_frequencies, to_frequencies
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation

SIZES = [(1, 1, 1), (5, 7, 1), (5, 7, 2), (5, 7, 3), (7, 5, 4), (6, 9, 3), (2, 11, 8), (11, 2, 5), (3, 3, 3)]


@pytest.mark.parametrize(("n", "D", "b"), SIZES)
def test_against_loops(n: int, D: int, b: int) -> None:
    p, q = (n + b - 1) // b, (D + b - 1) // b
    w = torch.randn(p * q * b, dtype=torch.float64)
    W = [[float(w[((i // b) * q + j // b) * b + (i % b - j % b) % b]) for j in range(D)] for i in range(n)]
    made = BlockCirculant(b=b)
    assert made.materialize(w, n, D).tolist() == W
    assert made.shapes(n, D) == {"c": (p, q, b)}
    assert made.calculate_l(n, D) == len(w)
    x = torch.randn(3, D, dtype=torch.float64)
    expected = [[sum(float(x[row, j]) * W[i][j] for j in range(D)) for i in range(n)] for row in range(3)]
    out = made._project([x], made.split(w, n, D), n)
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("n", "D", "b"), SIZES)
def test_padding_is_what_stands_nowhere(n: int, D: int, b: int) -> None:
    made = BlockCirculant(b=b)
    p, q = (n + b - 1) // b, (D + b - 1) // b
    used = {(i // b, j // b, (i % b - j % b) % b) for i in range(n) for j in range(D)}
    dead = [[[(I, J, t) not in used for t in range(b)] for J in range(q)] for I in range(p)]
    mask = made.padding(n, D).get("c", torch.zeros(p, q, b, dtype=torch.bool))
    assert mask.tolist() == dead


@pytest.mark.parametrize(("n", "D", "b"), [(64, 649, 8), (1024, 4096, 32), (1, 50, 1), (3, 3, 1), (63, 70, 4)])
def test_default_block_size(n: int, D: int, b: int) -> None:
    assert BlockCirculant().block_size(n, D) == b


@pytest.mark.parametrize("b", [3, 4, 5, 8])
def test_the_matrix_that_stands_for_the_transform_while_compiling(b: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_circulant, "_as_matrix", lambda like, length: False)
    signal = torch.randn(2, 3, b, dtype=torch.float64)
    spectrum = to_frequencies(signal)
    torch.testing.assert_close(from_frequencies(spectrum, b), signal)
    other = torch.randn_like(spectrum)  # With imaginary parts that no real signal has.
    inverse = from_frequencies(other, b)
    monkeypatch.setattr(block_circulant, "_as_matrix", lambda like, length: True)
    torch.testing.assert_close(to_frequencies(signal), spectrum)
    torch.testing.assert_close(from_frequencies(other, b), inverse)


def test_long_blocks_go_through_the_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_circulant, "SHORT", 4)
    for b in (3, 7, 12):
        made = BlockCirculant(b=b)
        w, x = torch.randn(made.calculate_l(20, 30), dtype=torch.float64), torch.randn(4, 30, dtype=torch.float64)
        torch.testing.assert_close(made.project([x], w, 20), x @ made.materialize(w, 20, 30).T)


@pytest.mark.parametrize("b", [0, -1, 2.5, "8", True])
def test_bad_block_size(b: Any) -> None:
    with pytest.raises(DimsError) as caught:
        BlockCirculant(b=b)
    assert str(caught.value) == (
        f"b, the block size of block_circulant, should be an integer of at least 1; found {b!r}."
    )


def test_block_size_out_of_range_is_refused_by_the_operator() -> None:
    with pytest.raises(FusionError) as caught:
        ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication={"name": "block_circulant", "b": 8})
    assert str(caught.value) == (
        "b, the block size of block_circulant, should be from 1 to max(n, D) = 7 for n = 5 and D = 7; found 8."
    )


def test_sizing_stores_nothing() -> None:
    made = BlockCirculant()
    assert made.calculate_l(64, 640) == 5120
    assert made.calculate_l(3, 5) == 15
    assert made.calculate_l(64, 640) == 5120
