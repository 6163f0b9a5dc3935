from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionkit.fabrications.toeplitz import Toeplitz, diagonal_lengths, fast_length

SIZES = [(1, 1), (1, 7), (7, 1), (5, 7), (7, 5), (6, 6), (2, 31)]


@pytest.mark.parametrize(("n", "D"), SIZES)
def test_against_loops(n: int, D: int) -> None:
    w = torch.randn(n + D - 1, dtype=torch.float64)
    W = [[float(w[i - j + D - 1]) for j in range(D)] for i in range(n)]
    assert Toeplitz().materialize(w, n, D).tolist() == W
    assert Toeplitz().shapes(n, D) == {"c": (n + D - 1,)}
    assert Toeplitz().calculate_l(n, D) == n + D - 1
    x = [torch.randn(3, D, dtype=torch.float64)]
    expected = [[sum(float(x[0][row, j]) * W[i][j] for j in range(D)) for i in range(n)] for row in range(3)]
    actual = Toeplitz()._project(x, {"c": w}, n)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("n", "D"), SIZES)
def test_diagonal_lengths(n: int, D: int) -> None:
    offsets = range(-D - 2, n + 3)
    counted = [sum(i - j == offset for i in range(n) for j in range(D)) for offset in offsets]
    assert diagonal_lengths(torch.tensor(offsets), n, D).tolist() == counted


def test_fast_length() -> None:
    smooth = sorted(odd << k for odd in (1, 3, 5, 9, 15) for k in range(13))
    for length in range(1, 2000):
        assert fast_length(length) == next(fast for fast in smooth if fast >= length)


def test_the_transforms_are_in_single_precision_for_half(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    rfft = torch.fft.rfft

    def look(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen.append(x.dtype)
        out: torch.Tensor = rfft(x, *args, **options)
        return out

    monkeypatch.setattr(torch.fft, "rfft", look)
    out = Toeplitz()._project([torch.randn(3, 4, dtype=torch.float16)], {"c": torch.randn(8, dtype=torch.float16)}, 5)
    assert seen == [torch.float32, torch.float32]
    assert out.dtype == torch.float16


def test_large_numbers_stay_in_range() -> None:
    c = torch.randn(65)
    x = (torch.rand(4, 53) + 0.5) * 1e36
    found = Toeplitz()._project([x], {"c": c}, 13)
    wanted = x.double() @ Toeplitz().materialize(c, 13, 53).double().T
    torch.testing.assert_close(found.double() / 1e36, wanted / 1e36, atol=1e-4, rtol=1e-4)
