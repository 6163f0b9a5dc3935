"""Copies of one small matrix along the diagonal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrication import Fabrication, cropped, padded
from fusionkit.fabrications._kronecker import check_count
from fusionkit.fabrications._reference import filled
from fusionkit.fusion import check_size
from fusionkit.kernels.planning import Effort


class BlockDiagonal(Fabrication):
    """``W = I_p ⊗ B``, cropped to (n, D); block B (s, t), s = ceil(n/p), t = ceil(D/p), l = s*t.

    I_p is the identity (p, p).  Source: Zhang, "RPN: Reconciled Polynomial Network", 2024, duplicated diagonal padding
    reconciliation.

    Args:
        p: the number of copies, such that (p-1)*ceil(n/p) < n and (p-1)*ceil(D/p) < D; None means 2, or 1 where n or D
            is 1.
    """

    def __init__(self, p: int | None = None) -> None:
        super().__init__()
        self.p = None if p is None else check_size("p, the number of blocks of block_diagonal,", p)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and a given number of copies."""
        return [{}, {"p": 3}]

    def block_count(self, n: int, D: int) -> int:
        """Return p, or the default for this size.

        Raises:
            FusionError: p is greater than n or D, or some block would have no rows or no columns.
        """
        if self.p is None:
            return min(2, n, D)
        return check_count("p, the number of blocks of block_diagonal,", self.p, n=n, D=D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the one copy."""
        p = self.block_count(n, D)
        return {"B": (-(-n // p), -(-D // p))}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        ((s, t),) = self.checked_shapes(n, D).values()
        p = -(-n // s)
        return Effort(p * s * t, D)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        B = blocks["B"]
        s, t = B.shape
        p = -(-n // s)
        # Row u of all blocks: the row, then p*t zeros; cut at p*t, every copy starts t columns after that above it.
        W = F.pad(B.view(s, 1, t).expand(s, p, t), (0, p * t)).flatten(1)[:, : p * p * t]
        return W.view(s, p, p * t).transpose(0, 1).reshape(p * s, p * t)[:n, :D]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        B = self.split(w, n, D)["B"]
        s, t = B.shape
        return filled(n, D, lambda i, j: float(B[i % s, j % t]) if i // s == j // t else 0.0)

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        B = blocks["B"]
        s, t = B.shape
        p = -(-n // s)
        pieces = padded(x, p * t).reshape(-1, t)
        return cropped(F.linear(pieces, B).view(-1, p * s), n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        B = blocks["B"].square()
        s, t = B.shape
        p = -(-n // s)
        return (p - 1) * B.sum() + B[: n - (p - 1) * s, : D - (p - 1) * t].sum()
