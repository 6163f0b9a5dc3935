"""The values, against the definitions written as loops, and what is refused."""

from __future__ import annotations

import math

import fusionkit
import pytest
import torch


@pytest.mark.parametrize("t", [0.5, 1.0, 4.0])
def test_soft_maximum(t: float) -> None:
    torch.manual_seed(0)
    views = [torch.randn(5, 4, dtype=torch.float64) for _ in range(3)]
    out = fusionkit.create("soft_maximum", dims=[4, 4, 4], temperature=t)(views)
    assert out.shape == (5, 4)
    for row in range(5):
        for column in range(4):
            mean = sum(math.exp(view[row, column].item() / t) for view in views) / 3
            assert math.isclose(out[row, column].item(), t * math.log(mean), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_temperature(temperature: float) -> None:
    with pytest.raises(fusionkit.FusionError, match=r"^temperature should be positive; found "):
        fusionkit.create("soft_maximum", dims=[4, 4], temperature=temperature)


@pytest.mark.parametrize(("n", "D"), [(3, 8), (8, 3), (4, 4), (1, 5)])
def test_folded_diagonal(n: int, D: int) -> None:
    torch.manual_seed(0)
    fabrication = fusionkit.create_fabrication("folded_diagonal")
    d = torch.randn(fabrication.calculate_l(n, D))
    W = fabrication.materialize(d, n, D)
    assert W.tolist() == [[d[j].item() if j % n == i else 0.0 for j in range(D)] for i in range(n)]
