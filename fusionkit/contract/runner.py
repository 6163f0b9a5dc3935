"""Runs checks on subjects, in this process or in worker processes."""

from __future__ import annotations

import os
import unittest
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from fusionkit import registry
from fusionkit.contract import workers
from fusionkit.contract.cases import EXAMPLES, Case
from fusionkit.contract.checks import CHECKS
from fusionkit.contract.guard import Interrupts, TimeLimit, guarded, interrupts
from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.needs import missing
from fusionkit.contract.report import Report, Result, Status
from fusionkit.contract.rules import Check, Rule, Skip, Violation, describe, rule_of
from fusionkit.contract.subject import Subject
from fusionkit.errors import ConfigError, nearest
from fusionkit.registry import lookup

__all__ = [
    "DEFAULT_LIMIT",
    "DEFAULT_TIER",
    "Plan",
    "all_checks",
    "check",
    "default_jobs",
    "ignore",
    "isolated",
    "results_of",
    "run",
    "several_jobs_possible",
    "stream",
]

DEFAULT_TIER = 2
#: Seconds that a check may take on a case.
DEFAULT_LIMIT = 60.0
#: Seconds beyond the time limit before a check that cannot be interrupted is killed; a compiler may get ready in them.
GRACE = 60.0
#: After this many checks of a subject that did not end, the others are not tried: each would take the time limit.
ENDLESS = 3
NO_END = "no end"
#: Most worker processes by default: each holds torch and its compiler, more than half a gigabyte.
JOBS = 2
#: Below this many subjects worker processes cost more than they save.
WORTHWHILE = 4

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


def check(
    obj: Any,
    *,
    kind: str | None = None,
    tier: int | None = None,
    select: Iterable[str] = (),
    skip: Iterable[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
    time_limit: float = DEFAULT_LIMIT,
) -> Report:
    """Check one operator or fabrication, or several.

    Args:
        obj: a registered name, ``"module:Class"``, a class, an instance, or a list of these.
        kind: ``"fusion"`` or ``"fabrication"``, for a name that both have; None checks both.
        tier: run the checks up to this tier; None means 2, or whatever ``select`` names.
        select: names of checks, also as patterns (``"config_*"``); empty means all.
        skip: names of checks to leave out.
        expected_failures: check name -> why it fails; these become xfailed, or else xpassed, which fails.
        seed: of the random views and parameters.
        time_limit: seconds that one check may take on one case.

    Raises:
        RegistryError: ``obj`` names nothing.
        ConfigError: ``select``, ``skip`` or ``expected_failures`` name a check that does not exist.
    """
    plan = Plan.of(
        tier=tier, select=select, skip=skip, expected_failures=expected_failures, seed=seed, time_limit=time_limit
    )
    return run(subjects_of(obj, kind), plan)


# ---------------------------------------------------------------------- what to run


def all_checks() -> list[Check]:
    """Return the checks of the kit and of the plugins, but for those of a plugin that bear the name of another."""
    known = {rule_of(check).name: check for check in CHECKS}
    for check in registry.checks():
        name = rule_of(check).name
        if known.setdefault(name, check) is not check:
            home = getattr(check, "__module__", "a plugin")
            warnings.warn(
                f"a plugin's check should have a name of its own; found {name} in {home}, which is left out.",
                RuntimeWarning,
                stacklevel=2,
            )
    return list(known.values())


@dataclass(frozen=True)
class Plan:
    """What to run, and how.

    Attributes:
        checks: in the order in which they run.
        tier: up to which cases are taken.
        expected_failures: check name -> why it fails.
        seed: of the random views and parameters.
        time_limit: seconds per check and case.
        case: only the case with this text.
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
        known = {rule_of(check).name: check for check in all_checks()}
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


# ---------------------------------------------------------------------- in this process


def run(subjects: Iterable[Subject], plan: Plan) -> Report:
    """Run the plan on the subjects in this process."""
    return Report(list(stream(subjects, plan)))


class Started(NamedTuple):
    """A check begins on a case; without a rule, the cases of the subject are being listed."""

    rule: Rule | None
    case: str


#: Called before each check runs on a case: with the subject, the check (None: the cases are listed), and the case.
Notice = Callable[[Subject, Rule | None, str], None]


def ignore(subject: Subject, rule: Rule | None, case: str) -> None:
    """Do nothing when a check starts."""


def stream(subjects: Iterable[Subject], plan: Plan, started: Notice = ignore) -> Iterator[Result]:
    """Run the plan in this process, and yield the results as they come.

    Args:
        subjects: what to check.
        plan: with which checks.
        started: called before each check.
    """
    try:
        for subject in subjects:
            stopping = False
            for event in _events(subject, plan):
                if isinstance(event, Result):
                    stopping |= plan.stop and event.bad
                    yield event
                elif stopping:
                    return
                else:
                    started(subject, *event)
            if stopping:
                return
    finally:
        workers.close()


def results_of(subject: Subject, check: Check, plan: Plan) -> list[Result]:
    """Run one check on the cases of one subject, and judge the results by what was expected."""
    events = _events(subject, replace(plan, checks=(check,)))
    return [event for event in events if isinstance(event, Result)]


def _events(subject: Subject, plan: Plan, first: int = 0, endless: int = 0) -> Iterator[Started | Result]:
    """Run the plan on one subject from its check number ``first`` on, after ``endless`` checks that did not end."""
    if any("interpreter" in rule_of(check).needs for check in plan.checks):
        workers.start_fresh()  # Meanwhile the first checks run.
    yield Started(None, "")
    cases = _cases(subject, plan)
    for check in plan.checks[first:]:
        rule = rule_of(check)
        if rule.kinds and subject.kind not in rule.kinds:
            continue
        results = []
        if endless == ENDLESS:
            untried = _broken("checks should end", f"that {ENDLESS} before this one did not, so it was not tried")
            results.append(_result(subject, rule, "", replace(untried, status="error")))
        else:
            for case in _scoped(rule, cases):
                name = "" if case is None else str(case)
                yield Started(rule, name)
                results.append(_execute(subject, case, name, check, plan))
                if results[-1].found == NO_END:
                    endless += 1
                    break  # The other cases would hardly end either.
        yield from _judged(results, rule, plan)


def _judged(results: list[Result], rule: Rule, plan: Plan) -> list[Result]:
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
        with interrupts() as user, guarded(seed, plan.time_limit):
            cases = subject.cases()
    except BaseException as error:
        if user.by_user:
            raise
        within = f" within {plan.time_limit:g} s"
        problem = (EXAMPLES + within, NO_END) if isinstance(error, TimeLimit) else (EXAMPLES, describe(error))
        cases = [Case(problem=problem)]
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
        # Tier 2 checks the operator with one fabrication, and each fabrication alone.
        return [case for case in cases if case.origin != "crossed"] or [*cases[:1]]
    return [*cases]


@dataclass(frozen=True)
class _Verdict:
    status: Status = "passed"
    reason: str = ""
    should: str = ""
    found: str = ""


def _broken(should: str, found: str, status: Status = "failed") -> _Verdict:
    return _Verdict(status, f"{should}; found {found}", should, found)


def _execute(subject: Subject, case: Case | None, name: str, check: Check, plan: Plan) -> Result:
    rule, start = rule_of(check), perf_counter()
    seed = zlib.crc32(f"{plan.seed}:{subject.id}:{rule.name}:{name}".encode())
    user = Interrupts()
    try:
        with interrupts() as user, guarded(seed, plan.time_limit) as output:
            if (lack := missing(rule.needs)) is not None:
                raise Skip(lack)
            reason = check(type(subject)(subject.source, case, seed)) or ""
        output.expect_none()
        verdict = _Verdict(reason=reason)
    except BaseException as error:
        if user.by_user:
            raise
        verdict = _verdict(error, rule, plan)
    return _result(subject, rule, name, verdict, perf_counter() - start)


def _verdict(error: BaseException, rule: Rule, plan: Plan) -> _Verdict:
    """Return what an exception that ended a check means."""
    match error:
        case Skip() | unittest.SkipTest():
            return _Verdict("skipped", str(error))
        case Violation():
            return _broken(error.should, error.found)
        case AssertionError():  # A plugin's check may use assert.
            return _Verdict("failed", describe(error))
        case TimeLimit():
            return _broken(f"{rule.name} should end within {plan.time_limit:g} s", NO_END, "error")
        case SystemExit():
            return _broken("the operator should not end the interpreter", f"SystemExit({error.code!r})", "error")
    return _Verdict("error", f"the check should come to a verdict; found {describe(error)}")


def _result(subject: Subject, rule: Rule, case: str, verdict: _Verdict, seconds: float = 0.0) -> Result:
    record = subject.source.record
    return Result(
        subject=subject.id,
        kind=subject.kind,
        distribution=record.distribution if record else None,
        version=record.version if record else None,
        check=rule.name,
        case=case,
        status=verdict.status,
        reason=verdict.reason,
        seconds=seconds,
        should=verdict.should,
        found=verdict.found,
        rule=rule.summary,
    )


# ---------------------------------------------------------------------- in worker processes


class _Task(NamedTuple):
    """One subject, or what is left of it.

    Attributes:
        subject: its number.
        first: the number of the check with which to begin.
        endless: how many checks before it did not end.
        problem: why its cases cannot be listed, as what should be and what was found.
    """

    subject: int
    first: int = 0
    endless: int = 0
    problem: tuple[str, str] | None = None


def default_jobs(subjects: Sequence[Subject]) -> int:
    """Return how many worker processes to use for these subjects: 1 if several cannot run, or are not worthwhile."""
    if len(subjects) < WORTHWHILE or not several_jobs_possible(subjects):
        return 1
    return min(JOBS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def several_jobs_possible(subjects: Sequence[Subject]) -> bool:
    """Whether worker processes know the subjects: forks do, a fresh process only what is installed."""
    return workers.can_fork() or (
        not lookup.current_snapshot().sealed
        and all(
            s.source.record is not None and not s.source.record.local and s.source.instance is None for s in subjects
        )
    )


def isolated(subjects: Sequence[Subject], plan: Plan, started: Notice = ignore, jobs: int = 1) -> Iterator[Result]:
    """Yield what ``stream`` yields, in that order, from worker processes.

    A subject that ends its process costs one result.  Where the system cannot fork, one job runs in this process.
    """
    if jobs == 1 and not workers.can_fork():
        yield from stream(subjects, plan, started)
        return
    tasks = deque(_Task(number) for number in range(len(subjects)))
    at = [Started(None, "")] * len(subjects)
    results: list[list[Result]] = [[] for _ in subjects]
    finished: set[int] = set()
    stopping = False
    method: workers.Method = "fork" if workers.can_fork() else "spawn"
    function = partial(_work, tuple(subjects), plan)
    for task, event in workers.run(function, tasks, jobs=jobs, patience=plan.time_limit + GRACE, method=method):
        if stopping and not isinstance(event, Result):
            return
        number, subject = task.subject, subjects[task.subject]
        if isinstance(event, Result):
            results[number].append(event)
        elif isinstance(event, Started):
            at[number] = event
            started(subject, *event)
        elif isinstance(event, workers.Lost):
            lost, rest = _after_loss(subject, task, at[number], event, plan)
            at[number] = Started(None, "")
            results[number] += lost
            tasks.appendleft(rest)
        else:
            finished.add(number)
        for result in _in_order(results, finished):
            stopping |= plan.stop and result.bad
            yield result


def _work(subjects: Sequence[Subject], plan: Plan, task: _Task) -> Iterator[Started | Result]:
    """Do a task; runs in a worker process."""
    subject = subjects[task.subject]
    if task.problem is not None:
        subject.source.known[:] = [Case(problem=task.problem)]
    return _events(subject, plan, task.first, task.endless)


def _after_loss(
    subject: Subject, task: _Task, at: Started, lost: workers.Lost, plan: Plan
) -> tuple[list[Result], _Task]:
    """Return the result of the check in which a worker process was lost, and the task that is left."""
    should, found = "the operator should not end the process", lost.how
    if lost.late:
        should = f"{at.rule.name if at.rule else 'examples()'} should end within {plan.time_limit:g} s"
        found = f"{NO_END}, and no way to interrupt it"
    if at.rule is None:
        if task.problem is not None:
            raise RuntimeError(f"worker processes should run; found that they end before any check, with {lost.how}")
        # Listed anew the cases could end the process again and again.
        return [], task._replace(problem=(f"{should} while the cases are built", found))
    result = _result(subject, at.rule, at.case, _broken(should, found, "error"))
    first = [rule_of(check).name for check in plan.checks].index(at.rule.name) + 1
    return _judged([result], at.rule, plan), task._replace(first=first, endless=task.endless + lost.late)


def _in_order(results: list[list[Result]], finished: set[int]) -> Iterator[Result]:
    """Take the results of the subjects up to the first that is not finished."""
    for number, ready in enumerate(results):
        while ready:
            yield ready.pop(0)
        if number not in finished:
            return
