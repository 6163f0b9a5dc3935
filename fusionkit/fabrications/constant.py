"""A matrix whose entries are all the same fixed number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._reference import filled
from fusionkit.fusion import Traits, check_number


class Constant(Fabrication):
    """``W_ij = value``; no parameters, l = 0.  The output is ``value`` times the sum of all columns, n times.

    Args:
        value: every entry of W; 1 as in the reference library, while 1/sqrt(D) would keep the variance of the views.
    """

    traits = Traits(constant=True)
    never_builds_W = True

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = check_number("value, the entries of the constant W,", value)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and another value."""
        return [{}, {"value": -0.25}]

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return no blocks."""
        return {}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        # In the dtype of the number; the caller casts.
        return torch.full((n, D), self.value, dtype=torch.float64)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        return filled(n, D, lambda i, j: float(self.value))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        first = x[0]
        # The sum of many columns in half precision would lose them.
        dtype = torch.promote_types(first.dtype, torch.float32)
        sums = [view.sum(-1, keepdim=True, dtype=dtype) for view in x]
        return (sum(sums[1:], sums[0]) * self.value).to(first.dtype).repeat(*(1,) * (first.dim() - 1), n)
