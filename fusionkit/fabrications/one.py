"""The matrix of ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fusionkit.fabrications.constant import Constant


class One(Constant):
    """``W_ij = 1``; no parameters, l = 0.  The output is the sum of all columns, n times."""

    def __init__(self) -> None:
        super().__init__(1.0)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the only form."""
        return [{}]
