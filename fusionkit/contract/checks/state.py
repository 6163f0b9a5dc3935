"""What depends on more than the arguments: random numbers, modes, earlier calls."""

from __future__ import annotations

from fusionkit.contract.rules import equal, rule, skip
from fusionkit.contract.subject import Subject


@rule()
def check_deterministic(subject: Subject) -> None:
    """Two calls in evaluation mode are bitwise equal, unless the operator is declared stochastic.

    Draw nothing in evaluation mode and keep nothing between calls; or declare `Traits(stochastic=True)`.
    """
    op = subject.operator()
    if op.traits.stochastic:
        skip("the operator is declared stochastic")
    x = subject.views(4)
    first = subject.forward(op, x).clone()
    for _ in range(2):
        equal("a second call", subject.forward(op, x), first, exact=True)
