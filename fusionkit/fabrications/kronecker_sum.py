"""A sum of Kronecker products."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrications._kronecker import BlockProduct, Sizes, cropped_sum, gather, spread
from fusionkit.fabrications._reference import filled, kronecker_entry
from fusionkit.fabrications.kronecker import Kronecker
from fusionkit.fusion import check_size
from fusionkit.kernels.planning import Effort


class KroneckerSum(BlockProduct):
    """``W = A_1 ⊗ B_1 + ... + A_R ⊗ B_R``, cropped to (n, D); blocks A (R, p, q), B (R, s, t), l = R*(p*q + s*t).

    Source: Zhang et al., "Beyond Fully-Connected Layers with Quaternions: Parameterization of Hypercomplex
    Multiplications with 1/n Parameters", 2021, equation 3.

    Args:
        R: the number of terms, at most min(p*q, s*t), with which any matrix is such a sum; None means 4, or that.
        p, q: numbers of block rows and columns, as for kronecker.
    """

    degree = 2
    rank_option = "R"
    default_rank = 4
    measure = staticmethod(Kronecker.measure)  # Those of one term, which suffices to compare sizes.

    def __init__(self, R: int | None = None, p: int | None = None, q: int | None = None) -> None:
        super().__init__(p, q)
        self.R = None if R is None else check_size("R, the number of terms of kronecker_sum,", R)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and given numbers of terms and blocks."""
        return [{}, {"R": 2, "p": 2, "q": 3}]

    @staticmethod
    def limit(p: int, q: Sizes, s: int, t: Sizes) -> Sizes:
        """Return the greatest number of terms, that of the entries of the smaller factor."""
        return np.minimum(p * q, s * t)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the factors of all terms."""
        p, q, s, t, R = self.layout(n, D)
        return {"A": (R, p, q), "B": (R, s, t)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        p, q, s, t, R = self.layout(n, D)
        if D * s + q * n <= D * p + n * t:
            return Effort(R * (q * t * s + p * q * s), D + R * q * s + n)
        return Effort(R * (p * q * t + p * t * s), D + q * t + R * p * t + n)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        A, B = blocks["A"], blocks["B"]
        (_, p, q), (_, s, t) = A.shape, B.shape
        pairs = A.flatten(1).T @ B.flatten(1)  # (p*q, s*t)
        return pairs.view(p, q, s, t).transpose(1, 2).reshape(p * s, q * t)[:n, :D]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        terms = [kronecker_entry(A, B) for A, B in zip(*self.split(w, n, D).values(), strict=True)]
        return filled(n, D, lambda i, j: sum(term(i, j) for term in terms))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        A, B = blocks["A"], blocks["B"]
        (R, p, q), (_, s, t) = A.shape, B.shape
        D = sum(view.shape[-1] for view in x)
        if D * s + q * n <= D * p + n * t:
            inner = spread(x, q, t, B.flatten(0, 1), terms=R)  # (R*q, m*s)
            return gather(A.transpose(0, 1).reshape(p, R * q) @ inner, s, n, x[0])
        inner = (A.flatten(0, 1) @ spread(x, q, t)).view(R, -1, t).transpose(0, 1).reshape(-1, R * t)  # (p*m, R*t)
        return gather(F.linear(inner, B.transpose(0, 1).reshape(s, R * t)).view(p, -1), s, n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        # The inner product of two Kronecker products is that of their left times that of their right factors.
        A, B = blocks["A"], blocks["B"]
        return cropped_sum(self.layout(n, D), n, D, lambda a, b, c, d: (_gram(A[:, a, c]) * _gram(B[:, b, d])).sum())


def _gram(terms: Tensor) -> Tensor:
    rows = terms.flatten(1)
    return rows @ rows.T
