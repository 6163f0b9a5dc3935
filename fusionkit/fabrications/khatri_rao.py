"""An entrywise product of two low-rank matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._options import limited
from fusionkit.fabrications._reference import dot, filled
from fusionkit.fabrications.lowrank_kronecker import product_norm
from fusionkit.fusion import check_size
from fusionkit.kernels.matmul import linear
from fusionkit.kernels.planning import Effort


class KhatriRao(Fabrication):
    """``W = (B1 A1) ∘ (B2 A2)``, of rank up to r^2; blocks B1 (n, r), A1 (r, D), B2 (n, r), A2 (r, D), l = 2*r*(n + D).

    Without W: ``W = L M``, where the rows of L (n, r^2) are the Kronecker products of the rows of B1 and B2, and the
    columns of M (r^2, D) those of the columns of A1 and A2.  Source: Hyeon-Woo et al., "FedPara: Low-rank Hadamard
    Product for Communication-Efficient Federated Learning", 2022, proposition 1.

    Args:
        r: the rank of either factor, from 1 to min(n, D); None means min(4, n, D), with as many parameters as lowrank
            has by default.
    """

    degree = 4

    def __init__(self, r: int | None = None) -> None:
        super().__init__()
        self.r = None if r is None else check_size("r, the rank of khatri_rao,", r)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and an explicit rank."""
        return [{}, {"r": 2}]

    def rank(self, n: int, D: int) -> int:
        """Return r, or the default for this size.

        Raises:
            FusionError: r is greater than min(n, D).
        """
        return limited("r, the rank of khatri_rao,", self.r, 4, "min(n, D)", min(n, D), n, D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the factors of both factors."""
        r = self.rank(n, D)
        return {"B1": (n, r), "A1": (r, D), "B2": (n, r), "A2": (r, D)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        inner = self.rank(n, D) ** 2
        return Effort(inner * (n + D), setup=inner * (n + D))

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return (blocks["B1"] @ blocks["A1"]) * (blocks["B2"] @ blocks["A2"])

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        B1, A1, B2, A2 = (self.split(w, n, D)[name] for name in ("B1", "A1", "B2", "A2"))
        return filled(n, D, lambda i, j: dot(B1[i], A1[:, j]) * dot(B2[i], A2[:, j]))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        left, right = _factors(blocks)
        return F.linear(linear(x, right), left)

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        r = blocks["B1"].shape[1]
        # The Gram matrices have r^4 entries.
        return super()._squared_norm(blocks, n, D) if r * r > min(n, D) else product_norm(*_factors(blocks))


def _factors(blocks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the factors (n, r^2) and (r^2, D) of W."""
    B1, A1, B2, A2 = (blocks[name] for name in ("B1", "A1", "B2", "A2"))
    left = (B1.unsqueeze(2) * B2.unsqueeze(1)).flatten(1)
    return left, (A1.unsqueeze(1) * A2.unsqueeze(0)).flatten(0, 1)
