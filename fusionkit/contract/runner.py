"""Runs checks on subjects.  Thin: what is verified stands in ``checks``, what it costs the process in ``guard``."""

from __future__ import annotations

import unittest
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from time import perf_counter

from fusionkit import registry
from fusionkit.contract import checks as shipped
from fusionkit.contract import probe
from fusionkit.contract.guard import Interrupts, TimeLimit, interrupts, no_traces, silence, time_limit
from fusionkit.contract.needs import missing
from fusionkit.contract.report import Report, Result, Status
from fusionkit.contract.rules import Check, Rule, Skip, Violation, describe, rule_of
from fusionkit.contract.subject import EXAMPLES, Case, Subject
from fusionkit.errors import ConfigError, nearest

__all__ = [
    "DEFAULT_TIER",
    "Plan",
    "Started",
    "all_checks",
    "failed",
    "ignore",
    "judged",
    "results_of",
    "run",
    "stream",
]

DEFAULT_TIER = 2

#: What much else depends on: these run first, so that the first failure is the likely cause of the others.
BASIC = (
    "signature",
    "factory_kwargs",
    "n_matches_output",
    "forward_shape",
    "no_input_mutation",
    "deterministic",
    "idempotent_calls",
    "parameters_stable",
    "l_matches_parameters",
    "instances_independent",
    "stochastic",
    "train_eval",
)
#: Seconds that a check may take on a case.
DEFAULT_LIMIT = 60.0
#: After so many checks of a subject that did not end, the others are not tried: each would take the time limit.
ENDLESS = 3
NO_END = "no end"


def all_checks() -> list[Check]:
    """Return the checks of the kit and those of the plugins."""
    return [*shipped.CHECKS, *registry.checks()]


@dataclass(frozen=True)
class Plan:
    """What to run, and how.

    Attributes:
        checks: in the order in which they run.
        tier: up to which cases are taken.
        expected_failures: check name -> why it fails.
        seed: of the random views and parameters.
        time_limit: seconds per check and case.
        case: only the case that reads so.
        stop: end after the first bad result.
    """

    checks: tuple[Check, ...]
    tier: int = DEFAULT_TIER
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    time_limit: float = DEFAULT_LIMIT
    case: str | None = None
    stop: bool = False

    @classmethod
    def of(
        cls,
        *,
        tier: int | None = None,
        select: Iterable[str] = (),
        skip: Iterable[str] = (),
        expected_failures: Mapping[str, str] | None = None,
        seed: int = 0,
        time_limit: float = DEFAULT_LIMIT,
        case: str | None = None,
        stop: bool = False,
    ) -> Plan:
        """Return the plan for these options; what ``select`` names runs whatever its tier, unless ``tier`` is given.

        Raises:
            ConfigError: a name that no check has, a tier that is none, an expected failure without a reason.
        """
        if tier not in (None, 1, 2, 3):
            raise ConfigError(f"tier should be 1, 2 or 3; found {tier!r}.")
        if not isinstance(time_limit, int | float) or not time_limit > 0:
            raise ConfigError(f"the time limit should be a positive number of seconds; found {time_limit!r}.")
        known: dict[str, Check] = {}
        for check in all_checks():
            known.setdefault(rule_of(check).name, check)  # A plugin's check never replaces one of the kit.
        wanted = _matching("select", select, known)
        unwanted = _matching("skip", skip, known)
        expected = dict(expected_failures or {})
        _matching("expected_failures", expected, known)
        for name, reason in expected.items():
            if not isinstance(reason, str) or not reason.strip():
                raise ConfigError(f"expected_failures[{name!r}] should say why the check fails; found {reason!r}.")
        most = tier or (3 if wanted else DEFAULT_TIER)
        chosen = [
            check
            for name, check in known.items()
            if (not wanted or name in wanted) and name not in unwanted and rule_of(check).tier <= most
        ]
        chosen.sort(key=lambda check: BASIC.index(name) if (name := rule_of(check).name) in BASIC else len(BASIC))
        return cls(tuple(chosen), most, expected, seed, float(time_limit), case, stop)


def _matching(option: str, names: Iterable[str], known: Mapping[str, Check]) -> set[str]:
    found: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        bare = str(name).removeprefix("check_")
        matches = {one for one in known if fnmatchcase(one, bare)}
        if not matches:
            raise ConfigError(f"{option} should name checks; found {name!r}.{nearest(bare, known)}")
        found |= matches
    return found


def run(subjects: Iterable[Subject], plan: Plan) -> Report:
    """Run the plan on the subjects."""
    return Report(list(stream(subjects, plan)))


#: Told of each check before it runs on a case: the subject, the check (None: the cases are listed), and the case.
Started = Callable[[Subject, Rule | None, str], None]


def ignore(subject: Subject, rule: Rule | None, case: str) -> None:
    """Do nothing when a check starts."""


def stream(subjects: Iterable[Subject], plan: Plan, started: Started = ignore) -> Iterator[Result]:
    """Yield the results as they come.

    Args:
        subjects: what to check.
        plan: with which checks.
        started: told before each check.
    """
    if any("interpreter" in rule_of(check).needs for check in plan.checks):
        probe.start()  # It takes seconds to be ready, meanwhile the first checks run.
    try:
        yield from _stream(subjects, plan, started)
    finally:
        probe.close()


def _stream(subjects: Iterable[Subject], plan: Plan, started: Started) -> Iterator[Result]:
    for subject in subjects:
        started(subject, None, "")
        cases = _cases(subject, plan)
        endless = 0
        for check in plan.checks:
            rule = rule_of(check)
            if rule.kinds and subject.kind not in rule.kinds:
                continue
            if endless == ENDLESS:
                should, found = "checks should end", f"that {ENDLESS} before this one did not, so it was not tried"
                results = judged([failed(subject, rule, "", should, found, status="error")], rule, plan)
            else:
                results = results_of(subject, check, plan, cases, started)
                endless += any(result.found == NO_END for result in results)
            yield from results
            if plan.stop and any(result.bad for result in results):
                return


def results_of(
    subject: Subject, check: Check, plan: Plan, cases: list[Case] | None = None, started: Started = ignore
) -> list[Result]:
    """Run one check on the cases of one subject, and judge the results by what was expected."""
    rule = rule_of(check)
    results = []
    for case in _scoped(rule, _cases(subject, plan) if cases is None else cases):
        started(subject, rule, "" if case is None else str(case))
        results.append(_execute(subject, case, check, rule, plan))
        if results[-1].found == NO_END:
            break  # The other cases would hardly end either.
    return judged(results, rule, plan)


def judged(results: list[Result], rule: Rule, plan: Plan) -> list[Result]:
    """Return the results of one check by what was expected: xfailed if it was to fail, xpassed if it did not."""
    reason = plan.expected_failures.get(rule.name)
    if reason is None:
        return results
    if any(result.status in ("failed", "error") for result in results):
        return [
            replace(result, status="xfailed", reason=f"{reason} ({result.reason})")
            if result.status in ("failed", "error")
            else result
            for result in results
        ]
    return [
        replace(result, status="xpassed", reason=f"this check was expected to fail ({reason}); it passed")
        if result.status == "passed"
        else result
        for result in results
    ]


def _cases(subject: Subject, plan: Plan) -> list[Case]:
    """Return the cases of a subject; if even that fails, one that says why, from now on."""
    seed = zlib.crc32(f"{plan.seed}:{subject.id}".encode())
    user = Interrupts()
    try:
        with interrupts() as user, silence(), no_traces(seed), time_limit(plan.time_limit):
            cases = subject.cases()
    except TimeLimit:
        cases = [Case(problem=(f"{EXAMPLES} within {plan.time_limit:g} s", "no end"))]
        subject.source.known.extend(cases)
    except BaseException as error:
        if user.seen:
            raise
        violated = (error.should, error.found) if isinstance(error, Violation) else (EXAMPLES, describe(error))
        cases = [Case(problem=violated)]
        subject.source.known.extend(cases)
    kept = [case for case in cases if case.tier <= plan.tier and plan.case in (None, str(case))]
    if plan.case is not None and not kept:
        known = "; ".join(str(case) for case in cases)
        raise ConfigError(f"case should be one of {known} for {subject.id}; found {plan.case!r}.")
    return kept


def _scoped(rule: Rule, cases: list[Case]) -> list[Case | None]:
    if rule.scope == "none":
        return [None]
    if rule.scope == "first":
        return [*cases[:1]]
    if rule.scope == "examples":
        return [case for case in cases if case.origin in ("example", "instance")] or [*cases[:1]]
    if rule.tier > 1:
        # What tier 2 looks at is seen in the operator with one fabrication, and in each fabrication alone.
        return [case for case in cases if case.origin != "crossed"] or [*cases[:1]]
    return [*cases]


def _execute(subject: Subject, case: Case | None, check: Check, rule: Rule, plan: Plan) -> Result:
    name = "" if case is None else str(case)
    seed = zlib.crc32(f"{plan.seed}:{subject.id}:{rule.name}:{name}".encode())
    status: Status = "passed"
    reason = should = found = ""
    start = perf_counter()
    user = Interrupts()
    try:
        with interrupts() as user, silence() as output, no_traces(seed), time_limit(plan.time_limit):
            if (lack := missing(rule.needs)) is not None:
                raise Skip(lack)
            reason = check(type(subject)(subject.source, case, seed)) or ""
        if output.closed:
            raise Violation("the operator should leave the standard streams open", f"that it closed {output.closed}")
        if output.printed:
            raise Violation("the operator should print nothing", repr(output.printed[:200]))
    except (Skip, unittest.SkipTest) as skipped:
        status, reason = "skipped", str(skipped)
    except Violation as violation:
        status, reason, should, found = "failed", str(violation), violation.should, violation.found
    except AssertionError as error:  # A plugin's check may use a plain assert.
        status, reason = "failed", describe(error)
    except TimeLimit:
        status = "error"
        should, found = f"{rule.name} should end within {plan.time_limit:g} s", NO_END
        reason = f"{should}; found {found}"
    except SystemExit as error:
        status = "error"
        should, found = "the operator should not end the interpreter", f"SystemExit({error.code!r})"
        reason = f"{should}; found {found}"
    except BaseException as error:
        if user.seen:
            raise
        status, reason = "error", f"the check should come to a verdict; found {describe(error)}"
    return _result(subject, rule, name, status, reason, perf_counter() - start, should, found)


def failed(subject: Subject, rule: Rule, case: str, should: str, found: str, *, status: Status = "failed") -> Result:
    """Return the result of a check that found something wrong, or came to no verdict."""
    return _result(subject, rule, case, status, f"{should}; found {found}", 0.0, should, found)


def _result(
    subject: Subject, rule: Rule, case: str, status: Status, reason: str, seconds: float, should: str, found: str
) -> Result:
    record = subject.source.record
    return Result(
        subject=subject.id,
        kind=subject.kind,
        distribution=record.distribution if record else None,
        version=record.version if record else None,
        check=rule.name,
        case=case,
        status=status,
        reason=reason,
        seconds=seconds,
        should=should,
        found=found,
        rule=rule.summary,
    )
