"""The full matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._reference import filled
from fusionkit.kernels.matmul import linear


class Dense(Fabrication):
    """``W = reshape(w, (n, D))``; block ``weight`` (n, D), l = n*D."""

    never_builds_W = True  # W is the parameter itself.
    is_dense = True

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the one block ``weight``."""
        return {"weight": (n, D)}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return blocks["weight"]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        return filled(n, D, lambda i, j: float(w[i * D + j]))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        return linear(x, blocks["weight"])
