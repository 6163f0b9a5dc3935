"""The checks of the kit, one module per family; every function ``check_<name>(subject)`` in them is a check."""

from __future__ import annotations

from types import ModuleType

from fusionkit.contract.checks import (
    compiler,
    config,
    explanation,
    fabrications,
    gradients,
    inputs,
    masks,
    numerics,
    parameters,
    registration,
    resources,
    shapes,
    sizes,
    state,
    storage,
    traits,
)
from fusionkit.contract.rules import Check

__all__ = ["CHECKS", "FAMILIES", "checks_of"]

FAMILIES: tuple[ModuleType, ...] = (
    config,
    sizes,
    shapes,
    inputs,
    masks,
    explanation,
    parameters,
    fabrications,
    numerics,
    traits,
    state,
    gradients,
    storage,
    compiler,
    resources,
    registration,  # Last: the fresh interpreter takes seconds to be ready.
)


def checks_of(family: ModuleType) -> list[Check]:
    """Return the checks of one module, in their order there."""
    return [
        function
        for name, function in vars(family).items()
        if name.startswith("check_") and function.__module__ == family.__name__
    ]


#: In the order in which they run.
CHECKS: tuple[Check, ...] = tuple(check for family in FAMILIES for check in checks_of(family))
