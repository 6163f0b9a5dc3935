"""The fusion `gram`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import fusionkit
import torch
from torch import Tensor


class Gram(fusionkit.Fusion):
    """The Gram matrix of k views of equal width d: `out[..., a * d + b] = sum_i A_i[..., a] * A_i[..., b]`; n = d², l = 0.

    A first formula that keeps the contract: replace it by your own, here and in the four methods below.
    """

    # What holds for every input; `fusionkit check` verifies it.  All traits: help(fusionkit.Traits)
    traits = fusionkit.Traits(permutation_invariant=True, batch_independent=True)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Yield keywords with which the conformance kit builds the operator."""
        yield {"dims": [4, 4, 4]}

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the square of the common width of the views; widths that differ are a DimsError."""
        return self.resolve_equal_dims(dims) ** 2  # For views of any widths: self.resolve_dims(dims), a tuple.

    def calculate_l(self) -> int:
        """Return 0: nothing is learned."""
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(tuple(x), -2)  # (..., k, d)
        return (stacked.mT @ stacked).flatten(-2)
