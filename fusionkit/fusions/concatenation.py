"""Concatenation of the views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fusionkit.fusion import Fusion, Traits


class Concatenation(Fusion):
    """``A_1 ⊔ A_2 ⊔ ... ⊔ A_k`` along the last dimension, (..., n_i) -> (..., D) with D = sum of n_i; l = 0."""

    traits = Traits(linear=True, batch_independent=True, monotone=True, missing="neutral")

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return equal, unequal and prime widths."""
        return [{"dims": [4, 4]}, {"dims": [3, 1, 7]}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the sum of the widths."""
        return sum(self.resolve_dims(dims))

    def calculate_l(self) -> int:
        """Return 0."""
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(x), -1)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Fill the columns of a float64 result view by view."""
        out = torch.empty(*x[0].shape[:-1], self.calculate_n(), dtype=torch.float64)
        start = 0
        for view in x:
            out[..., start : start + view.shape[-1]] = view
            start += view.shape[-1]
        return out
