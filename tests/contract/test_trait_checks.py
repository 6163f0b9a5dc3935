from __future__ import annotations

from typing import Any

import pytest

from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.rules import Skip, Violation
from fusionkit.contract.subject import Subject
from fusionkit.contract.trait_checks import verify
from fusionkit.fusion import Traits
from tests.contract.mutants.right import Mix, Total


def subject_of(cls: type, **traits: Any) -> Subject:
    return subjects_of(type(cls.__name__, (cls,), {"traits": Traits(**traits), "__module__": __name__}))[0]


def test_declared_and_seen() -> None:
    verify(subject_of(Total, permutation_invariant=True), "permutation_invariant", lambda s: True, "it should not")


def test_declared_and_not_seen() -> None:
    with pytest.raises(Violation, match=r"is declared and should .*found that it does not for dims=\[4, 4, 4\]"):
        verify(subject_of(Mix, permutation_invariant=True), "permutation_invariant", lambda s: False, "it should not")
    with pytest.raises(Violation, match=r"stochastic is declared, and an example should .*found none among"):
        verify(subject_of(Mix, stochastic=True), "stochastic", lambda s: False, "it should not")


def test_undeclared_and_seen_on_every_example() -> None:
    with pytest.raises(Violation, match=r"it should .*found the property on every"):
        verify(subject_of(Mix), "stochastic", lambda s: True, "it should not")


def test_undeclared_and_not_seen_on_every_example() -> None:
    from fusionkit.fusions.concatenation import Concatenation

    subject = subject_of(Concatenation)
    verify(subject, "stochastic", lambda s: s.dims == (4, 4), "it should not")
    verify(subject, "stochastic", lambda s: True if s.dims == (4, 4) else None, "it should not")


def test_no_example_can_show_it() -> None:
    with pytest.raises(Skip, match="no example can show stochastic"):
        verify(subject_of(Mix), "stochastic", lambda s: None, "it should not")
