"""What tests assert of a message: its name and its value; the whole sentences stand in ``messages.json`` alone."""

from __future__ import annotations

import re


def like(text: str) -> str:
    """Return a pattern of the beginning of a message, in which ``…`` stands for any words.

    ``like("train.epochs … found 0.")`` matches "train.epochs should be an integer of at least 1; found 0."
    """
    return "^" + ".*".join(map(re.escape, text.split("…")))
