"""Functions that the kit runs in a fresh interpreter: import a target, list the registry, call an operator."""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any

import torch

from fusionkit import registry
from fusionkit.contract.guard import world
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion


@dataclass(frozen=True)
class Imported:
    """The effects of importing a target.

    Attributes:
        kind: fusion or fabrication; None if the target is neither.
        found: the repr of the target.
        seconds: of processor time that the import took.
        changed: the parts of ``world`` that the import changed, and the events of sockets.
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
    before, start = world(), process_time()
    found: Any = importlib.import_module(module)
    seconds, after = process_time() - start, world()
    for part in path.split("."):
        found = getattr(found, part)
    bases = found.__mro__ if isinstance(found, type) else ()
    kind = "fusion" if Fusion in bases else "fabrication" if Fabrication in bases else None
    changed = [name for name in before if before[name] != after[name]]
    if opened := sockets & {"socket.__new__", "socket.connect", "socket.bind"}:
        changed.append(f"sockets ({', '.join(sorted(opened))})")
    return Imported(kind, repr(found)[:200], seconds, changed)


def imported_by_listing(modules: Sequence[str]) -> list[str]:
    """List the registry and return those of the modules that are imported afterwards."""
    registry.fusions()
    registry.fabrications()
    return [module for module in modules if module in sys.modules]


def computed(data: bytes) -> bytes:
    """Unpickle a callable and its argument, call it, and return the result as ``torch.save`` writes it."""
    call, x = pickle.loads(data)
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.save(call(x), buffer)
    return buffer.getvalue()
