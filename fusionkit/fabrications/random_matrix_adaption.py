"""Two frozen random matrices, scaled by learned vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrication import Fabrication, gaussians
from fusionkit.fabrications._options import limited
from fusionkit.fabrications._reference import dot, filled
from fusionkit.fabrications.lowrank_kronecker import product_norm
from fusionkit.fusion import check_size
from fusionkit.kernels.matmul import linear


class RandomMatrixAdaption(Fabrication):
    """``W = diag(u) A diag(v) B`` with A (n, r) and B (r, D) frozen; blocks u (n), v (r), l = n + r.

    A and B are the buffers of these names: Gaussian, A with variance 1/r, B with variance 1/D.  Source: Kopiczko et
    al., "VeRA: Vector-based Random Matrix Adaptation", 2024, equation 2.

    Args:
        r: the rank, from 1 to min(n, D); None means min(64, n, D).
        seed: of A and B.
    """

    degree = 2
    never_builds_W = True

    def __init__(self, r: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.r = None if r is None else check_size("r, the rank of random_matrix_adaption,", r)
        self.seed = check_size("seed, of the frozen parts of random_matrix_adaption,", seed, minimum=0)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and a given rank and seed."""
        return [{}, {"r": 2, "seed": 1}]

    def rank(self, n: int, D: int) -> int:
        """Return r, or the default for this size.

        Raises:
            FusionError: r is greater than min(n, D).
        """
        return limited("r, the rank of random_matrix_adaption,", self.r, 64, "min(n, D)", min(n, D), n, D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the two diagonals."""
        return {"u": (n,), "v": (self.rank(n, D),)}

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the two matrices."""
        r = self.rank(n, D)
        return {"A": (n, r), "B": (r, D)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        drawn = gaussians(self.seed, self.frozen_shapes(n, D))
        return {"A": drawn["A"] * self.rank(n, D) ** -0.5, "B": drawn["B"] * D**-0.5}

    def _factors(self, blocks: Mapping[str, Tensor], n: int, D: int) -> tuple[Tensor, Tensor]:
        """Return diag(u) A diag(v) and B."""
        u, v = blocks["u"], blocks["v"]
        frozen = self.frozen(n, D, u)
        return u.unsqueeze(1) * frozen["A"] * v, frozen["B"]

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        left, B = self._factors(blocks, n, D)
        return left @ B

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        u, v = self.split(w, n, D).values()
        A, B = self.frozen(n, D, w).values()
        return filled(n, D, lambda i, j: float(u[i]) * dot(A[i], v, B[:, j]))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        left, B = self._factors(blocks, n, sum(view.shape[-1] for view in x))
        return F.linear(linear(x, B), left)

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return product_norm(*self._factors(blocks, n, D))
