"""Dotted keys of a config, and the keys that steer Hydra's ``instantiate``."""

from __future__ import annotations

__all__ = ["CONTROL_KEYS", "MAX_DEPTH", "join"]


#: The keys by which a node steers Hydra's ``instantiate``; any other key of the form ``_x_`` is refused.
CONTROL_KEYS = frozenset({"_target_", "_recursive_", "_convert_", "_partial_"})


#: Deeper configs are taken for an attack on the stack.
MAX_DEPTH = 64


def join(key: str, name: object) -> str:
    """Return the dotted key of ``name`` below ``key``."""
    return f"{key}.{name}" if key else str(name)
