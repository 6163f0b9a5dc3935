"""A product of two thin matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._options import limited
from fusionkit.fabrications._reference import product
from fusionkit.fabrications.lowrank_kronecker import product_norm
from fusionkit.fusion import check_size
from fusionkit.kernels.matmul import linear


class LowRank(Fabrication):
    """``W = A B`` of rank r; blocks A (n, r), B (r, D), l = r*(n + D).  Source: Hu et al., "LoRA", 2021, equation 3.

    Args:
        r: the rank, from 1 to min(n, D); None means min(8, n, D).
    """

    degree = 2
    never_builds_W = True

    def __init__(self, r: int | None = None) -> None:
        super().__init__()
        self.r = None if r is None else check_size("r, the rank of lowrank,", r)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and an explicit rank."""
        return [{}, {"r": 2}]

    def rank(self, n: int, D: int) -> int:
        """Return r, or the default for this size.

        Raises:
            FusionError: r is greater than min(n, D).
        """
        return limited("r, the rank of lowrank,", self.r, 8, "min(n, D)", min(n, D), n, D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return A (n, r) and B (r, D)."""
        r = self.rank(n, D)
        return {"A": (n, r), "B": (r, D)}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return blocks["A"] @ blocks["B"]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        return product(*self.split(w, n, D).values())

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        return F.linear(linear(x, blocks["B"]), blocks["A"])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return product_norm(blocks["A"], blocks["B"])
