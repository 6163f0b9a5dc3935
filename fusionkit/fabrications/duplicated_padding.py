"""Copies of one small matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrication import Fabrication, cropped, padded
from fusionkit.fabrications._kronecker import Layout, check_count, cropped_sum
from fusionkit.fabrications._reference import filled
from fusionkit.fusion import check_size
from fusionkit.kernels.planning import Effort


class DuplicatedPadding(Fabrication):
    """``W = 1_{p×q} ⊗ B``, cropped to (n, D); block B (s, t), s = ceil(n/p), t = ceil(D/q), l = s*t.

    1_{p×q} is the matrix (p, q) of ones.  Source: Zhang, "RPN: Reconciled Polynomial Network", 2024, duplicated padding
    reconciliation.

    Args:
        p, q: numbers of copies below and beside each other, such that (p-1)*ceil(n/p) < n, q likewise; None means 2,
            or 1 where n or D is 1.
    """

    def __init__(self, p: int | None = None, q: int | None = None) -> None:
        super().__init__()
        self.p = None if p is None else check_size("p, the number of block rows of duplicated_padding,", p)
        self.q = None if q is None else check_size("q, the number of block columns of duplicated_padding,", q)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and given numbers of copies."""
        return [{}, {"p": 1, "q": 3}]

    def layout(self, n: int, D: int) -> Layout:
        """Return the numbers and the shape of the copies.

        Raises:
            FusionError: p or q is out of range for this n and D.
        """
        p, q = min(2, n) if self.p is None else self.p, min(2, D) if self.q is None else self.q
        check_count("p, the number of block rows of duplicated_padding,", p, n=n)
        check_count("q, the number of block columns of duplicated_padding,", q, D=D)
        return Layout(p, q, -(-n // p), -(-D // q), 1)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the one copy."""
        _, _, s, t, _ = self.layout(n, D)
        return {"B": (s, t)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        ((s, t),) = self.checked_shapes(n, D).values()
        return Effort(s * t, 2 * D + n)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        B = blocks["B"]
        s, t = B.shape
        # Of valid numbers of blocks there is one for each length of a block.
        return B.repeat(-(-n // s), -(-D // t))[:n, :D]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        B = self.split(w, n, D)["B"]
        s, t = B.shape
        return filled(n, D, lambda i, j: float(B[i % s, j % t]))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        s, t = blocks["B"].shape
        q = -(-sum(view.shape[-1] for view in x) // t)
        folded = padded(x, q * t).view(-1, q, t).sum(1)
        return cropped(F.linear(folded, blocks["B"]).repeat(1, -(-n // s)), n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        B = blocks["B"].square()
        ones = B.new_ones(()).expand(*self.layout(n, D)[:2])
        return cropped_sum(self.layout(n, D), n, D, lambda a, b, c, d: ones[a, c].sum() * B[b, d].sum())
