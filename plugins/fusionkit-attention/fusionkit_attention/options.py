"""The check of the option ``main``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusionkit import FusionError


def check_main(main: Any, dims: Sequence[int] | None) -> int:
    """Return the index of the main view, or raise a ``FusionError`` if there is no such view."""
    if isinstance(main, bool) or not isinstance(main, int) or main < 0 or (dims is not None and main >= len(dims)):
        last = "" if dims is None else f" from 0 to {len(dims) - 1}"
        raise FusionError(f"main should be the index of a view{last}; found {main!r}.")
    return main
