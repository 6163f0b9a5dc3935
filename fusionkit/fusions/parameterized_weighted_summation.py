"""Sum of the views with learned weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from fusionkit.fusion import ElementwiseFusion, FusionOptions, Traits
from fusionkit.fusions.weighted_summation import weighted_sum


class ParameterizedWeightedSummation(ElementwiseFusion):
    """``a_1 A_1 + ... + a_k A_k`` with a = w, of k views of equal width, (..., n) each -> (..., n); l = k.

    The parameter ``weight`` (k,) starts at 1/sqrt(k), which keeps the variance of independent views.
    """

    traits = Traits(linear=True, batch_independent=True, constant_init=True, missing="neutral")
    per_view = ("weight",)

    def __init__(
        self, n: int | None = None, dims: Sequence[int] | None = None, **common: Unpack[FusionOptions]
    ) -> None:
        super().__init__(n, dims, **common)
        if self.dims is not None:
            self.weight = nn.Parameter(torch.empty(len(self.dims), **self._factory))
            self.reset_parameters()

    def calculate_l(self) -> int:
        """Return k, the number of views."""
        return len(self.resolve_dims())

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set every weight to 1/sqrt(k)."""
        if self.dims is not None:
            nn.init.constant_(self.weight, len(self.dims) ** -0.5)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return weighted_sum(x, self.weight)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Multiply a stacked float64 copy by the weights and add up."""
        return torch.stack([view.double() for view in x], -1) @ self.weight.detach().double()
