"""The conformance kit inside a package's own pytest suite.

::

    from fusionkit.testing import parametrize_with_checks

    @parametrize_with_checks(["my_operator"], expected_failures={"export": "data-dependent shape"})
    def test_contract(check):
        check()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.report import Result
from fusionkit.contract.rules import Check, Kind, Rule, rule_of
from fusionkit.contract.runner import DEFAULT_LIMIT, ExpectedFailures, Plan, results_of
from fusionkit.contract.subject import Subject
from fusionkit.registry import isolated

__all__ = ["ContractCheck", "isolated_registry", "parametrize_with_checks"]

isolated_registry = isolated


class ContractCheck:
    """One check of one subject, on all its cases; call it in a test."""

    def __init__(self, subject: Subject, check: Check, plan: Plan) -> None:
        self.subject, self.check, self.plan = subject, check, plan

    @property
    def rule(self) -> Rule:
        """The rule of the check, with its name, tier and summary."""
        return rule_of(self.check)

    def __repr__(self) -> str:
        return f"{self.subject.key or self.subject.id}-{self.rule.name}"

    def __call__(self) -> None:
        """Run the check; a bad result fails the test, an expected failure ends it as xfailed, a skip skips it."""
        import pytest

        __tracebackhide__ = True
        results = results_of(self.subject, self.check, self.plan)
        if bad := [result for result in results if result.bad]:
            pytest.fail("\n".join([self.rule.summary, *map(_line, bad)]), pytrace=False)
        if expected := [result for result in results if result.status == "xfailed"]:
            pytest.xfail("; ".join(map(_line, expected)))
        if not any(result.status == "passed" for result in results):
            pytest.skip(results[0].reason if results else "no case")


def _line(result: Result) -> str:
    where = f"{result.subject} [{result.case}]" if result.case else result.subject
    return f"{where}: {result.reason}"


def parametrize_with_checks(
    subjects: Any,
    *,
    expected_failures: ExpectedFailures | None = None,
    kind: Kind | None = None,
    tier: int | None = None,
    select: Iterable[str] = (),
    seed: int = 0,
    time_limit: float = DEFAULT_LIMIT,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a pytest decorator that runs the test once per subject and check, as its argument ``check``.

    Args:
        subjects: names, ``"module:Class"``, classes or instances.
        expected_failures: check name -> why it fails, or subject -> such a mapping, besides those on the class; the
            test fails if the check passes.
        kind: ``"fusion"`` or ``"fabrication"``, for names that both have.
        tier: run the checks up to this tier; None means 2.
        select: names or patterns of checks; empty means all.
        seed: of the random views and parameters.
        time_limit: seconds of processor time that one check may take on one case.

    Raises:
        RegistryError: a subject that is not registered, cannot be imported, or is of another type.
        ConfigError: a check or a subject that does not exist, or an expected failure without a reason.
    """
    import pytest

    plan = Plan.of(tier=tier, select=select, expected_failures=expected_failures, seed=seed, time_limit=time_limit)
    found = subjects_of([subjects] if isinstance(subjects, str) else subjects, kind)
    plan.verify_subjects(found)
    checks = [
        ContractCheck(subject, check, plan)
        for subject in found
        for check in plan.checks
        if subject.kind in rule_of(check).kinds
    ]
    return pytest.mark.parametrize("check", checks, ids=repr)
