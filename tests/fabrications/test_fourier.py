from __future__ import annotations

from math import cos, pi, sqrt
from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrications import fourier
from fusionkit.fabrications.fourier import Fourier
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation

SIZES = [(1, 1), (1, 7), (7, 1), (5, 7), (6, 4), (2, 9), (8, 3)]


def waves(frequencies: list[list[int]], f: list[float], n: int, D: int) -> list[list[float]]:
    return [
        [
            sum(a * cos(2 * pi * (u * i / n + v * j / D)) for a, u, v in zip(f, *frequencies, strict=True))
            / sqrt(n * D)
            for j in range(D)
        ]
        for i in range(n)
    ]


@pytest.mark.parametrize("fft_cost", [0, 10**6])
@pytest.mark.parametrize(("n", "D"), SIZES)
def test_against_loops(n: int, D: int, fft_cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fourier, "FFT_COST", fft_cost)  # By the FFT, or by the waves.
    made = Fourier(seed=2)
    l = made.calculate_l(n, D)
    w = torch.randn(l, dtype=torch.float64)
    W = torch.tensor(waves(made._draw_frozen(n, D)["frequencies"].tolist(), w.tolist(), n, D), dtype=torch.float64)
    torch.testing.assert_close(made.materialize(w, n, D), W)
    assert made.shapes(n, D) == {"f": (l,)}
    U, V = made._waves(w, made._draw_frozen(n, D)["frequencies"], n, D)
    torch.testing.assert_close(U @ V, W)


def test_is_the_real_part_of_the_inverse_transform_of_the_sparse_spectrum() -> None:
    made, w = Fourier(l=9), torch.randn(9, dtype=torch.float64)
    spectrum = torch.zeros(12, 35, dtype=torch.complex128)
    for a, u, v in zip(w, *made._draw_frozen(12, 35)["frequencies"], strict=True):
        spectrum[u, v] = a
    torch.testing.assert_close(made.materialize(w, 12, 35), torch.fft.ifft2(spectrum, norm="ortho").real)


@pytest.mark.parametrize(("n", "D"), SIZES)
def test_no_two_frequencies_have_the_same_real_part(n: int, D: int) -> None:
    classes = {min((u, v), (-u % n, -v % D)) for u in range(n) for v in range(D)}
    made = Fourier(l=len(classes))
    drawn = {(int(u), int(v)) for u, v in made._draw_frozen(n, D)["frequencies"].T}
    assert {min((u, v), (-u % n, -v % D)) for u, v in drawn} == classes
    W = made.materialize(torch.randn(len(classes)), n, D)
    assert W.shape == (n, D)
    with pytest.raises(FusionError) as caught:
        Fourier(l=len(classes) + 1).calculate_l(n, D)
    assert str(caught.value) == (
        "l, the number of frequencies of fourier, should be from 1 to the number of those that differ in their real "
        f"part = {len(classes)} for n = {n} and D = {D}; found {len(classes) + 1}."
    )


def test_few_frequencies_build_no_W() -> None:
    n, dims = 300, [200, 300]
    op = ParameterizedConcatenation(n, dims, parameter_fabrication={"name": "fourier", "l": 8})
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in [out] if isinstance(t, torch.Tensor))
            return out

    with Watch():  # type: ignore[no-untyped-call]
        op.fabrication._project([torch.randn(16, width) for width in dims], dict(op.named_parameters()), n)
    assert max(sizes) < n * sum(dims) / 4


@pytest.mark.exhaustive
def test_large_sizes_keep_their_digits() -> None:
    n, D = 3000, 50_000
    made = Fourier(l=1, seed=5)
    W = made.materialize(torch.ones(1), n, D)[-1]
    u, v = made._draw_frozen(n, D)["frequencies"][:, 0].tolist()
    exact = [cos(2 * pi * ((u * (n - 1) % n) / n + (v * j % D) / D)) / sqrt(n * D) for j in range(D)]
    torch.testing.assert_close(W.double() * sqrt(n * D), torch.tensor(exact).double() * sqrt(n * D), atol=3e-6, rtol=0)


def test_default_length() -> None:
    assert Fourier().calculate_l(64, 649) == 64
    assert Fourier().calculate_l(3, 3) == 5
    assert Fourier().calculate_l(64, 649) == 64


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
def test_bad_length(value: Any) -> None:
    with pytest.raises(DimsError, match=r"^l, the number of frequencies of fourier, should "):
        Fourier(l=value)
