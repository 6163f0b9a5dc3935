"""What the fabrications' options share: a number that is limited by the size of W."""

from __future__ import annotations

from fusionkit.errors import FusionError


def limited(what: str, given: int | None, default: int, limit: str, most: int, n: int, D: int) -> int:
    """Return the given number, at most ``most``; where none is given the default, or ``most`` if that is less.

    ``what`` names it in messages, "r, the rank of lowrank,"; ``limit`` is the formula of ``most``,
    "min(n, D)".

    Raises:
        FusionError: the given number is greater.
    """
    if given is None:
        return min(default, most)
    if given > most:
        raise FusionError(f"{what} should be from 1 to {limit} = {most} for n = {n} and D = {D}; found {given}.")
    return given
