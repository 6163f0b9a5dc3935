"""A sparse matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fusionkit.errors import FusionError
from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._reference import filled
from fusionkit.fusion import check_number, check_size


class Masked(Fabrication):
    """``W_ij = values[t] if i*D + j = positions[t] else 0``; block values (nnz), l = nnz.

    nnz = max(1, round(density*n*D)) and 0 <= t < nnz.  The buffer ``positions`` (nnz) is drawn without
    replacement from ``seed``, in ascending order.  Source: Zhang, "RPN: Reconciled Polynomial Network", 2024, masking
    reconciliation.

    Args:
        density: share of the kept entries, above 0 and at most 1.
        seed: of the positions.
    """

    frozen_dtypes = {"positions": torch.int64}

    def __init__(self, density: float = 0.1, seed: int = 0) -> None:
        super().__init__()
        what = "density, the share of the entries that masked keeps,"
        self.density = check_number(what, density)
        if not 0 < self.density <= 1:
            raise FusionError(f"{what} should be above 0 and at most 1; found {density!r}.")
        self.seed = check_size("seed, of the positions of masked,", seed, minimum=0)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and half of the entries."""
        return [{}, {"density": 0.5, "seed": 1}]

    def count(self, n: int, D: int) -> int:
        """Return nnz, the number of kept entries."""
        return max(1, round(self.density * n * D))

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the kept entries."""
        return {"values": (self.count(n, D),)}

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the positions of the kept entries."""
        return {"positions": (self.count(n, D),)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        order = torch.randperm(n * D, generator=torch.Generator().manual_seed(self.seed), device="cpu")
        return {"positions": order[: self.count(n, D)].sort().values}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        values = blocks["values"]
        positions = self.frozen(n, D, values)["positions"]
        return values.new_zeros(n * D).scatter(0, positions, values).view(n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        kept = dict(zip(self.frozen(n, D, w)["positions"].tolist(), w.tolist(), strict=True))
        return filled(n, D, lambda i, j: kept.get(i * D + j, 0.0))

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return blocks["values"].square().sum()
