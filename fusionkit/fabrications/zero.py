"""The zero matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fusionkit.fabrications.constant import Constant


class Zero(Constant):
    """``W_ij = 0``; no parameters, l = 0."""

    def __init__(self) -> None:
        super().__init__(0.0)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the only form."""
        return [{}]
