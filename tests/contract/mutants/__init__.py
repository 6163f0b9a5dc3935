"""Operators that are wrong in one way each, and the check that has to catch it; one module per family of checks.

Each mutant changes one thing in a right operator (``Mix``, ``Total`` or ``Thin``), so that few other checks object.
"""

from __future__ import annotations

from tests.contract.mutants import (  # noqa: F401  They enter themselves.
    attention,
    corners,
    deeper,
    derivatives,
    explanation,
    fabrications,
    inputs,
    interface,
    masks,
    parameters,
    resources,
    sizes,
    state,
    traits,
    unseen,
    values,
)
from tests.contract.mutants.table import MUTANTS

__all__ = ["MUTANTS"]
