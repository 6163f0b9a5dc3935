"""What the kit runs in a fresh interpreter: it imports targets, lists the registry, and computes."""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from fusionkit import registry
from fusionkit.contract.guard import world
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion

__all__ = ["Imported", "computed", "imported", "imported_by_listing"]


@dataclass(frozen=True)
class Imported:
    """What importing a target did.

    Attributes:
        kind: fusion or fabrication; None if the target is neither.
        found: the target, as text.
        seconds: that the import took.
        changed: what the import changed, and the sockets that it opened.
    """

    kind: str | None
    found: str
    seconds: float
    changed: list[str]


def imported(target: str) -> Imported:
    """Import ``module:Class``."""
    module, _, path = target.partition(":")
    sockets: set[str] = set()
    sys.addaudithook(lambda event, _: sockets.add(event) if event.startswith("socket.") else None)
    before, start = world(), perf_counter()
    found: Any = importlib.import_module(module)
    seconds, after = perf_counter() - start, world()
    for part in path.split("."):
        found = getattr(found, part)
    bases = (("fusion", Fusion), ("fabrication", Fabrication))
    kinds = [kind for kind, base in bases if isinstance(found, type) and issubclass(found, base)]
    changed = [name for name in before if before[name] != after[name]]
    if opened := sockets & {"socket.__new__", "socket.connect", "socket.bind"}:
        changed.append(f"sockets ({', '.join(sorted(opened))})")
    return Imported(kinds[0] if kinds else None, repr(found)[:200], seconds, changed)


def imported_by_listing(modules: Sequence[str]) -> list[str]:
    """List the registry, and return which of the modules that imported."""
    registry.fusions()
    registry.fabrications()
    return [module for module in modules if module in sys.modules]


def computed(data: bytes) -> bytes:
    """Unpickle a callable and its argument, and return the tensor that it computes, as ``torch.save`` writes it."""
    call, x = pickle.loads(data)
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.save(call(x), buffer)
    return buffer.getvalue()
