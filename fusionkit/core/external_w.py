"""Parameters from outside: a shallow copy of a module whose own parameters are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from fusionkit.core.fusion import Fusion

__all__ = ["with_parameters"]


def with_parameters(fusion: Fusion, values: Mapping[str, Tensor]) -> Fusion:
    """Return a shallow copy of ``fusion`` with these own parameters, by name; ``fusion`` itself is left alone."""
    twins: dict[int, nn.Module] = {}

    def copy(module: nn.Module, prefix: str) -> nn.Module:
        # One that hangs in two places has the names of the first; one without own parameters below it is used as it is.
        if id(module) in twins:
            return twins[id(module)]
        if not any(name.startswith(prefix) for name in values):
            return module
        twin = twins[id(module)] = object.__new__(type(module))
        twin.__dict__.update(module.__dict__)
        twin.__dict__["_parameters"] = {name: values.get(prefix + name) for name in module._parameters}
        twin.__dict__["_modules"] = {
            name: child
            if child is None or (not prefix and name in ("preprocess", "postprocess"))
            else copy(child, f"{prefix}{name}.")
            for name, child in module._modules.items()
        }
        return twin

    return copy(fusion, "")  # type: ignore[return-value]
