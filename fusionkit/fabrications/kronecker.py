"""A Kronecker product of two matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fusionkit.fabrications._kronecker import BlockProduct, Sizes, cropped_sum, gather, spread
from fusionkit.fabrications._reference import filled, kronecker_entry
from fusionkit.kernels.planning import Effort


class Kronecker(BlockProduct):
    """``W = A ⊗ B``, cropped to (n, D); blocks A (p, q), B (s, t), s = ceil(n/p), t = ceil(D/q), l = p*q + s*t.

    Source: Zhang, "RPN: Reconciled Polynomial Network", 2024, hypercomplex multiplication.

    Args:
        p, q: numbers of block rows and columns, such that (p-1)*ceil(n/p) < n, q likewise.  None: among the pairs with
            l within 5 % of the least, that of the greatest rank, then fewest multiply-adds, then smallest p.
    """

    degree = 2

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and given numbers of blocks."""
        return [{}, {"p": 2, "q": 3}]

    @staticmethod
    def measure(n: int, D: int, p: int, q: Sizes, s: int, t: Sizes, r: int) -> tuple[Sizes, Sizes, Sizes]:
        """Return l, the rank of A ⊗ B, and the multiply-adds per row."""
        rank = np.minimum(p, q) * np.minimum(s, t)
        return p * q + s * t, rank, np.minimum(D * s + q * n, D * p + n * t)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the factors."""
        p, q, s, t, _ = self.layout(n, D)
        return {"A": (p, q), "B": (s, t)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        p, q, s, t, _ = self.layout(n, D)
        if D * s + q * n <= D * p + n * t:
            return Effort(q * t * s + p * q * s, D + q * s + n)
        return Effort(p * q * t + p * t * s, D + q * t + n)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return kron(blocks["A"], blocks["B"], n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        return filled(n, D, kronecker_entry(*self.split(w, n, D).values()))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        A, B = blocks["A"], blocks["B"]
        (p, q), (s, t) = A.shape, B.shape
        D = sum(view.shape[-1] for view in x)
        if D * s + q * n <= D * p + n * t:
            return gather(A @ spread(x, q, t, B), s, n, x[0])
        inner = A @ spread(x, q, t)  # (p, m*t)
        return gather(inner, s, n, x[0], B)

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        A, B = blocks["A"].square(), blocks["B"].square()
        return cropped_sum(self.layout(n, D), n, D, lambda a, b, c, d: A[a, c].sum() * B[b, d].sum())


def kron(A: Tensor, B: Tensor, n: int, D: int) -> Tensor:
    """Return A ⊗ B cropped to (n, D), A (p, q), B (s, t)."""
    (p, q), (s, t) = A.shape, B.shape
    return (A.view(p, 1, q, 1) * B.view(1, s, 1, t)).view(p * s, q * t)[:n, :D]
