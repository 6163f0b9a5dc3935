"""Verify a trait both ways: one that is declared must hold, and one that holds on every example must be declared."""

from __future__ import annotations

from collections.abc import Callable

from fusionkit.contract.rules import expect, skip
from fusionkit.contract.subject import Subject

#: Traits that allow something: if declared, one example must show it.  Other traits must hold on every case.
MAY = ("stochastic", "train_eval_differ", "aliases_input")


def example_cases(subject: Subject) -> list[Subject]:
    """Return the subject at the cases of its examples."""
    return [subject.at(case) for case in subject.cases() if case.origin in ("example", "instance")]


def verify(subject: Subject, trait: str, holds: Callable[[Subject], bool | None], should: str) -> None:
    """Compare a declared or undeclared trait with the behaviour on the examples.

    Args:
        subject: the subject.
        trait: the name of the trait.
        holds: whether a case has the property; None if the case cannot show it.
        should: what an operator without the trait should do.
    """
    declared = bool(getattr(subject.traits, trait))
    everywhere = declared and trait not in MAY
    cases = [subject.at(case) for case in subject.cases() if case.origin != "crossed"]
    found = {str(case.case): holds(case) for case in (cases if everywhere else example_cases(subject))}
    shown = {case: value for case, value in found.items() if value is not None}
    if not shown:
        skip(f"no example can show {trait}")
    if declared and trait in MAY:
        expect(any(shown.values()), f"{trait} is declared, and an example should show it", f"none among {list(shown)}")
    elif everywhere:
        wrong = next((case for case, value in shown.items() if not value), None)
        expect(wrong is None, f"{trait} is declared and should hold", f"that it does not for {wrong}")
    else:
        should = f"{should}, or {trait} should be declared"
        expect(not all(found.values()), should, f"the property on every example, {list(found)}")
