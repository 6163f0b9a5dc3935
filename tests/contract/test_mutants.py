"""The proof of the kit: every check catches operators that are wrong in its way, and lets right ones pass."""

from __future__ import annotations

import pytest
import test_registration_checks
from mutants import MUTANTS, RIGHT, RUNTIME, TESTED

import fusionkit
from fusionkit.contract.rules import rule_of
from fusionkit.contract.runner import all_checks

PAIRS = [(check, cls) for check, classes in MUTANTS.items() for cls in classes]


@pytest.mark.parametrize(("check", "cls"), PAIRS, ids=[f"{check}-{cls.__name__}" for check, cls in PAIRS])
def test_check_catches_mutant(check: str, cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIME, "scale", 2.0)
    report = fusionkit.check(cls, select=[check])
    assert [result.status for result in report.results if result.bad], repr(report)
    assert {result.status for result in report.bad} == {"failed"}, repr(report)


@pytest.mark.parametrize("cls", RIGHT)
def test_right_operator_passes(cls: type) -> None:
    report = fusionkit.check(cls, tier=3)
    assert report.ok, repr(report)


def test_every_check_has_a_mutant() -> None:
    assert test_registration_checks.REGISTRATION
    assert {rule_of(check).name for check in all_checks()} - set(MUTANTS) - set(TESTED) == set()
