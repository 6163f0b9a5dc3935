"""Watches what an operator keeps and allocates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fusionkit.kernels.modes import DispatchMode
from fusionkit.kernels.tracing import tensors_in

__all__ = ["Allocations", "Largest", "attributes", "class_attributes", "largest_on_cpu", "stray_tensors", "tensors_in"]

#: Attributes of every module that torch manages itself.
TORCH = frozenset(vars(nn.Module()))


def attributes(module: nn.Module) -> dict[str, str]:
    """Return the attributes of a module and its children in comparable form, tensors by identity and version."""
    found = {}
    for prefix, child in module.named_modules():
        for name, value in vars(child).items():
            path = f"{prefix}.{name}" if prefix else name
            if name in ("_parameters", "_buffers"):
                for key, tensor in value.items():
                    found[f"{path}.{key}"] = _form(tensor)
            elif name == "_modules" or "hook" in name:
                found[path] = repr(sorted(value)) if isinstance(value, dict) else repr(value)
            else:
                found[path] = _form(value)
    return found


def class_attributes(module: nn.Module) -> dict[str, str]:
    """Return the data on the classes of a module and its children, but for those of torch, in comparable form."""
    return {
        f"{cls.__qualname__}.{name}": _form(value)
        for cls in {cls for child in module.modules() for cls in type(child).__mro__}
        if cls.__module__.partition(".")[0] not in ("torch", "builtins")
        for name, value in list(vars(cls).items())
        if not name.startswith("__")
    }


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {id(value)} version {value._version} {tuple(value.shape)} {value.dtype}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_form(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"{type(value).__name__}[" + ", ".join(map(_form, value)) + "]"
    if isinstance(value, nn.Module) or callable(value):
        return f"{type(value).__name__} {id(value)}"
    return repr(value)


def stray_tensors(module: nn.Module) -> list[str]:
    """Return the attributes that hold tensors which are neither parameters nor buffers."""
    registered = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    found = []
    for prefix, child in module.named_modules():
        for name, value in vars(child).items():
            if name not in TORCH:
                tensors = tensors_in(value)
                if any(id(tensor) not in registered for tensor in tensors):
                    found.append(f"{prefix}.{name}" if prefix else name)
    return found


class Largest:
    """The largest tensor that appeared on the CPU, and the operation that made it."""

    elements = 0
    by = ""


@contextlib.contextmanager
def largest_on_cpu() -> Iterator[Largest]:
    """Record the largest CPU tensor that operations within produce."""
    largest = Largest()

    class Mode(DispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for tensor in tensors_in(out):
                if tensor.device.type == "cpu" and tensor.numel() > largest.elements:
                    largest.elements, largest.by = tensor.numel(), str(func)
            return out

    with Mode():
        yield largest


class Allocations(DispatchMode):
    """Counts the bytes of the storages that operations within create, as long as they live.

    Attributes:
        peak: the most bytes that were alive at once.
        shapes: the shapes of all tensors in new storages.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self.shapes: list[tuple[int, ...]] = []
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and record what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tensors_in(out):
            self._record(tensor)
        self.peak = max(self.peak, self.alive())
        return out

    def _record(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        entry = self._alive.get(key)
        if key in self._known or (entry is not None and not entry[0].expired()):
            return
        self._alive[key] = (StorageWeakRef(storage), storage.nbytes())
        self.shapes.append(tuple(tensor.shape))

    def alive(self) -> int:
        """Return the bytes that are alive now."""
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        return sum(size for _, size in self._alive.values())
