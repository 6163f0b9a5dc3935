"""What film and adaptation_gate share: one view, the main one, that the others change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusionkit import FusionError
from fusionkit.fusion import LayeredFusion


class MainViewFusion(LayeredFusion):
    """Base class of operators with the option ``main``, which the constructor gives to ``check_main``."""

    main: int

    def others(self) -> list[int]:
        """Return the indices of all views but the main one."""
        return [i for i in range(len(self.resolve_dims())) if i != self.main]

    def check_views(self, views: Sequence[int]) -> list[int]:
        """Return indices of views, among them the main one, as a list.

        Raises:
            FusionError: wrong indices, or none of them is that of the main view.
        """
        kept = super().check_views(views)
        if self.main not in kept:
            raise FusionError(f"views should contain the main view, {self.main}; found {kept}.")
        return kept


def check_main(main: Any, dims: Sequence[int] | None) -> int:
    """Return the index of the main view, or raise a ``FusionError`` if there is no such view."""
    if isinstance(main, bool) or not isinstance(main, int) or main < 0 or (dims is not None and main >= len(dims)):
        last = "" if dims is None else f" from 0 to {len(dims) - 1}"
        raise FusionError(f"main should be the index of a view{last}; found {main!r}.")
    return main
