"""The check of this package finds what it is for, and is right about all others."""

from __future__ import annotations

from collections.abc import Sequence

import fusionkit
import pytest
import torch
from torch import Tensor


class Rounded(fusionkit.Fusion):
    """`A_1 + ... + A_k` with a detour through bfloat16."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the common width of the views."""
        return self.resolve_equal_dims(dims)

    def calculate_l(self) -> int:
        """Return 0."""
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        short = torch.bfloat16 if x[0].dtype == torch.float32 else x[0].dtype
        return torch.stack(tuple(x)).to(short).sum(0).to(x[0].dtype)


def test_finds_lost_digits() -> None:
    report = fusionkit.check(Rounded, select=["single_precision"])
    assert not report.ok
    assert all(result.reason.startswith("the float32 result should agree") for result in report.results)


@pytest.mark.parametrize(
    "name", ["summation", "parameterized_concatenation", "lowrank", "soft_maximum", "folded_diagonal"]
)
def test_holds(name: str) -> None:
    report = fusionkit.check(name, select=["single_precision"])
    assert {result.status for result in report.results} == {"passed"}
