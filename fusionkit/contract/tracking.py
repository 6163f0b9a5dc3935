"""Record the attributes that an operator sets, and the tensors that it creates."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fusionkit.kernels.modes import DispatchMode
from fusionkit.kernels.tracing import Allocations, tensors_in

__all__ = ["Allocations", "LargestOnCpu", "attributes", "class_attributes", "stray_tensors"]

#: Attributes that torch sets on every module.
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
    """Return the data on the classes of a module and its children, except those of torch, in comparable form."""
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
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, child in module.named_modules()
        for name, value in vars(child).items()
        if name not in TORCH and any(id(tensor) not in registered for tensor in tensors_in(value))
    ]


class LargestOnCpu(DispatchMode):
    """Records the largest CPU tensor that operations within return.

    Attributes:
        elements: of that tensor.
        by: the operation that returned it.
    """

    elements = 0
    by = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and record its results."""
        out = func(*args, **(kwargs or {}))
        for tensor in tensors_in(out):
            if tensor.device.type == "cpu" and tensor.numel() > self.elements:
                self.elements, self.by = tensor.numel(), str(func)
        return out
