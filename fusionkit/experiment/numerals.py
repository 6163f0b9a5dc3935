"""How the values of metrics are written."""

from __future__ import annotations

import math

#: They have the unit of a target, so they may be of any size.
_WITH_UNIT = ("rmse", "mae")


def places(metric: str, value: float) -> int:
    """Return how many decimals of a metric are shown: four, or those of four digits where it has a unit."""
    if not metric.startswith(_WITH_UNIT) or value == 0:
        return 4
    return min(12, max(0, 3 - math.floor(math.log10(abs(value)))))


def numeral(metric: str, value: float) -> str:
    """Return the value of a metric as text."""
    return f"{value:.{places(metric, value)}f}"
