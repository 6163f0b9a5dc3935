"""A frozen network of low-rank layers that makes W from a short vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrications._reference import dot, filled
from fusionkit.fabrications.hypernet import SLOPE, Hypernet
from fusionkit.fusion import check_size


class RandomMatrixHypernet(Hypernet):
    """``W = A diag(σ(w P Q) S) B``: a frozen network whose layers are products of thin matrices; block w (l), l given.

    P (l, h), Q (h, hidden), S (hidden, h), A (n, h) and B (h, D) are Gaussian buffers drawn from ``seed``; σ is the
    leaky ReLU.  Source: Zhang, "RPN 2: On Interdependence Function Learning Towards Unifying and Advancing CNN, RNN,
    GNN, and Transformer", 2024, random matrix based hypernet reconciliation, whose output layer here has rows that are
    matrices of rank one.

    Args:
        l: number of parameters.
        h: rank of the layers, which bounds the rank of W; None means l, with a lower one w would be redundant.
        hidden: number of hidden units.
        seed: of the frozen network.
    """

    def __init__(self, l: int = 64, h: int | None = None, hidden: int = 128, seed: int = 0) -> None:
        super().__init__(l, h, seed)
        self.hidden = check_size("hidden, the number of hidden units of random_matrix_hypernet,", hidden)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and a small network."""
        return [{}, {"l": 5, "h": 3, "hidden": 4, "seed": 1}]

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the factors of the layers."""
        l, h, hidden = self.l, self.h, self.hidden
        return {"P": (l, h), "Q": (h, hidden), "S": (hidden, h), "A": (n, h), "B": (h, D)}

    def _hidden(self, w: Tensor, layers: Mapping[str, Tensor]) -> Tensor:
        return F.leaky_relu(w @ layers["P"] @ layers["Q"], SLOPE) @ layers["S"]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        P, Q, S, A, B = self.frozen(n, D, w).values()
        thin = [dot(w, column) for column in P.T]
        hidden = [unit if (unit := dot(thin, column)) >= 0 else SLOPE * unit for column in Q.T]
        weights = [dot(hidden, column) for column in S.T]
        return filled(n, D, lambda i, j: dot(A[i], weights, B[:, j]))
