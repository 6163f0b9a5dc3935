"""The full matrix."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionkit.fabrication import Fabrication


class Dense(Fabrication):
    """``W = reshape(w, (n, D))``; block ``weight`` (n, D), l = n*D."""

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the one block ``weight``."""
        return {"weight": (n, D)}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return blocks["weight"]
