"""The proof of the kit: every check catches operators that are wrong in its way, and lets right ones pass."""

from __future__ import annotations

import pytest

import fusionkit
from fusionkit.contract.checks import CHECKS
from fusionkit.contract.rules import rule_of
from tests.contract import test_registration_checks
from tests.contract.mutant_table import PAGE, PAIRS, summary
from tests.contract.mutants import MUTANTS
from tests.contract.mutants.resources import RUNTIME
from tests.contract.mutants.right import RIGHT, UNUSUAL
from tests.contract.mutants.table import TESTED
from tests.exhaustive import exhaustive, exhaustive_unless


@pytest.mark.parametrize(("check", "cls"), PAIRS, ids=[f"{check}-{cls.__name__}" for check, cls in PAIRS])
def test_check_catches_mutant(check: str, cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIME, "scale", 2.0)
    report = fusionkit.check(cls, select=[check])
    assert [result.status for result in report.results if result.bad], repr(report)
    assert {result.status for result in report.bad} == {"failed"}, repr(report)


@pytest.mark.parametrize("tier", [1, *exhaustive([3])])
@pytest.mark.parametrize("cls", [RIGHT[0], *exhaustive(RIGHT[1:])])
def test_right_operator_passes(cls: type, tier: int) -> None:
    report = fusionkit.check(cls, tier=tier)
    assert report.ok, repr(report)


@pytest.mark.parametrize("tier", [1, *exhaustive([2])])
@pytest.mark.parametrize("cls", exhaustive_unless(UNUSUAL[4::8].__contains__, UNUSUAL))
def test_unusual_operator_passes(cls: type, tier: int) -> None:
    report = fusionkit.check(cls, tier=tier, skip=["compile_fullgraph", "export"])
    assert report.ok, repr(report)


def test_every_check_has_a_mutant() -> None:
    assert len(PAIRS) == sum(map(len, MUTANTS.values()))
    assert test_registration_checks.REGISTRATION
    assert {rule_of(check).name for check in CHECKS} - set(MUTANTS) - set(TESTED) == set()


def test_table_of_mutants_is_current() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [tuple(line.strip("| ").split(" | ")) for line in lines if line.startswith("| ") and "---" not in line]
    mutants = [row[:3] for row in rows if len(row) == 4 and row[0] != "check"]
    assert mutants == [(check, cls.__name__, summary(cls)) for check, cls in PAIRS]
    tests = [row for row in rows if len(row) == 2 and row[0] != "check"]
    assert tests == [(check, ", ".join(names)) for check, names in TESTED.items()]
