"""Saving, loading, copying, moving."""

from __future__ import annotations

from fusionkit.contract.rules import describe, equal, expect, rule
from fusionkit.contract.subject import Subject


@rule()
def check_state_dict(subject: Subject) -> None:
    """A state_dict loads strictly into a second operator, which then computes the same; its keys never change.

    Keep everything that the output depends on in parameters and persistent buffers.
    """
    op, second = subject.operator(), subject.operator()
    x = subject.views(3)
    state = op.state_dict()
    expect(
        list(second.state_dict()) == list(state),
        f"every operator of the case should have the keys {list(state)}",
        list(second.state_dict()),
    )
    before = subject.forward(op, x)
    expect(
        list(op.state_dict()) == list(state), f"the keys should stay {list(state)} after a call", list(op.state_dict())
    )
    subject.forward(second, x)
    try:
        second.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, strict=True)
    except Exception as error:
        expect(False, "load_state_dict(strict=True) should accept the state_dict", describe(error))
    if not op.traits.stochastic:
        equal("the output after loading the state_dict", subject.forward(second, x), before, exact=True)
