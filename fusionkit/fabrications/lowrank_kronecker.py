"""A Kronecker product whose right factor has low rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fusionkit.fabrications._kronecker import BlockProduct, Sizes, compressed, cropped_sum, expanded
from fusionkit.fabrications._reference import filled, kronecker_entry, product
from fusionkit.fabrications.kronecker import kron
from fusionkit.fusion import check_size
from fusionkit.kernels.planning import Effort


class LowRankKronecker(BlockProduct):
    """``W = A ⊗ (S T)``, cropped to (n, D); blocks A (p, q), S (s, r), T (r, t), l = p*q + r*(s + t).

    s = ceil(n/p), t = ceil(D/q).  Source: Zhang, "RPN: Reconciled Polynomial Network", 2024, low-rank parameterized
    hypercomplex multiplication; Mahabadi et al., "Compacter", 2021, section 3.2.

    Args:
        r: rank of the right factor, from 1 to min(s, t); None means 8, or the greatest possible.
        p, q: numbers of block rows and columns, as for kronecker, among those that admit r.
    """

    degree = 3
    rank_option = "r"

    def __init__(self, r: int | None = None, p: int | None = None, q: int | None = None) -> None:
        super().__init__(p, q)
        self.r = None if r is None else check_size(f"r, the rank of {self.label()},", r)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and given numbers."""
        return [{}, {"r": 1, "p": 2, "q": 3}]

    @staticmethod
    def measure(n: int, D: int, p: int, q: Sizes, s: int, t: Sizes, r: int) -> tuple[Sizes, Sizes, Sizes]:
        """Return l, the rank of W, and the multiply-adds per row."""
        return p * q + r * (s + t), np.minimum(p, q) * r, r * (D + p * q + n)

    @staticmethod
    def limit(p: int, q: Sizes, s: int, t: Sizes) -> Sizes:
        """Return the greatest rank of a block."""
        return np.minimum(s, t)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the left factor, and the two of the right one."""
        p, q, s, t, r = self.layout(n, D)
        return {"A": (p, q), "S": (s, r), "T": (r, t)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        p, q, s, t, r = self.layout(n, D)
        return Effort(r * (q * t + p * q + p * s), D + n)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return kron(blocks["A"], blocks["S"] @ blocks["T"], n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        A, S, T = self.split(w, n, D).values()
        return filled(n, D, kronecker_entry(A, product(S, T)))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        A, S, T = blocks["A"], blocks["S"], blocks["T"]
        return expanded(compressed(x, A.shape[1], T) @ A.T, S, n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        A, S, T = blocks["A"].square(), blocks["S"], blocks["T"]
        return cropped_sum(self.layout(n, D), n, D, lambda a, b, c, d: A[a, c].sum() * product_norm(S[b], T[:, d]))


def product_norm(left: Tensor, right: Tensor) -> Tensor:
    """Return the squared Frobenius norm of left @ right, (s, r) and (r, t), from their Gram matrices."""
    return ((left.T @ left) * (right @ right.T)).sum()
