"""A rule that `fusionkit check` verifies besides its own, for every operator and fabrication on the machine."""

from __future__ import annotations

import copy

from fusionkit.contract.rules import equal, rule, skip
from fusionkit.contract.subject import Subject


@rule(tier=2)
def check_single_precision(subject: Subject) -> None:
    """The float32 result is the float64 result, up to rounding.

    Compute in the dtype of the views: casts to a shorter one, and constants of a shorter one, lose digits.
    """
    op = subject.operator()  # In float64, in evaluation mode, its parameters at random values.
    if subject.promises(op).stochastic:
        skip("the operator is declared stochastic")
    views = subject.views(7)
    expected = subject.forward(op, views)
    found = subject.forward(copy.deepcopy(op).float(), [view.float() for view in views])
    equal("the float32 result", found, expected)
