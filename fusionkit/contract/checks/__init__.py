"""The checks of the kit, one module per family; every function ``check_<name>(subject)`` in them is a check."""

from __future__ import annotations

from types import ModuleType

from fusionkit.contract.checks import gradients, inputs, numerics, parameters, shapes, sizes, state, storage
from fusionkit.contract.rules import Check

__all__ = ["CHECKS", "FAMILIES"]

FAMILIES: tuple[ModuleType, ...] = (sizes, shapes, inputs, numerics, parameters, gradients, state, storage)


def _checks(module: ModuleType) -> list[Check]:
    return [function for name, function in vars(module).items() if name.startswith("check_")]


#: In the order in which they run.
CHECKS: tuple[Check, ...] = tuple(check for family in FAMILIES for check in _checks(family))
