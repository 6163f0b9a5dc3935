"""A Kronecker product of two matrices of low rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from fusionkit.fabrications._kronecker import Sizes, compressed, cropped_sum, expanded
from fusionkit.fabrications._reference import filled, kronecker_entry, product
from fusionkit.fabrications.kronecker import kron
from fusionkit.fabrications.lowrank_kronecker import LowRankKronecker, product_norm
from fusionkit.kernels.planning import Effort


class DualLowRankKronecker(LowRankKronecker):
    """``W = (P Q) ⊗ (S T)``, cropped to (n, D); blocks P (p, r), Q (r, q), S (s, r), T (r, t), l = r*(p + q + s + t).

    s = ceil(n/p), t = ceil(D/q).  Source: Zhang, "RPN: Reconciled Polynomial Network", 2024, dual low-rank
    parameterized hypercomplex multiplication.

    Args:
        r: rank of both factors, from 1 to min(p, q, s, t); None means 8, or the greatest possible.
        p, q: numbers of block rows and columns, as for kronecker, among those that admit r.
    """

    degree = 4

    @staticmethod
    def measure(n: int, D: int, p: int, q: Sizes, s: int, t: Sizes, r: int) -> tuple[Sizes, Sizes, Sizes]:
        """Return l, the rank of W, and the multiply-adds per row."""
        return r * (p + q + s + t), np.full_like(q, r * r), r * (D + n) + r * r * (p + q)

    @staticmethod
    def limit(p: int, q: Sizes, s: int, t: Sizes) -> Sizes:
        """Return the greatest rank of both factors."""
        return np.minimum(np.minimum(p, q), np.minimum(s, t))

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the two factors of either factor."""
        p, q, s, t, r = self.layout(n, D)
        return {"P": (p, r), "Q": (r, q), "S": (s, r), "T": (r, t)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        p, q, s, t, r = self.layout(n, D)
        return Effort(r * (q * t + r * q + r * p + p * s), D + n)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return kron(blocks["P"] @ blocks["Q"], blocks["S"] @ blocks["T"], n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        P, Q, S, T = self.split(w, n, D).values()
        return filled(n, D, kronecker_entry(product(P, Q), product(S, T)))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        P, Q, S, T = (blocks[name] for name in "PQST")
        return expanded(compressed(x, Q.shape[1], T) @ Q.T @ P.T, S, n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        P, Q, S, T = (blocks[name] for name in "PQST")
        return cropped_sum(
            self.layout(n, D), n, D, lambda a, b, c, d: product_norm(P[a], Q[:, c]) * product_norm(S[b], T[:, d])
        )
