"""Runs checks on subjects, in this process or in worker processes."""

from __future__ import annotations

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
from fusionkit._util.machine import cpu_count
from fusionkit.contract import workers
from fusionkit.contract.cases import EXAMPLES, Case
from fusionkit.contract.checks import CHECKS
from fusionkit.contract.guard import Output, TimeLimit, attempt
from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.needs import missing
from fusionkit.contract.report import Report, Result, Status
from fusionkit.contract.rules import Check, Kind, Rule, Skip, Violation, describe, outcome, rule_of, skip
from fusionkit.contract.subject import Subject
from fusionkit.errors import ConfigError, nearest
from fusionkit.registry import lookup

#: Check name -> why it fails, or subject -> such a mapping.
ExpectedFailures = Mapping[str, str | Mapping[str, str]]

DEFAULT_TIER = 2
#: Seconds of processor time that a check may take on a case.
DEFAULT_LIMIT = 60.0
#: Extra seconds before a worker whose check ignores the limit is killed; starting a compiler may need them.
GRACE = 60.0
#: Checks of a subject that may exceed the time limit; the checks after them are not run, as each could take as long.
MAX_TIMEOUTS = 3
#: Maximum number of worker processes by default: torch and its compiler take more than half a gigabyte in each.
MAX_JOBS = 2
#: With fewer subjects, starting worker processes takes longer than it saves.
MIN_SUBJECTS = 4


def check(
    obj: Any,
    *,
    kind: Kind | None = None,
    tier: int | None = None,
    select: Iterable[str] = (),
    skip: Iterable[str] = (),
    expected_failures: ExpectedFailures | None = None,
    seed: int = 0,
    time_limit: float = DEFAULT_LIMIT,
) -> Report:
    """Check one operator or fabrication, or several.

    Args:
        obj: a registered name, ``"module:Class"``, a class, an instance, or a list of these.
        kind: ``"fusion"`` or ``"fabrication"``, for a name that both have; None checks both.
        tier: run the checks up to this tier; None means 2, or any tier for the checks in ``select``.
        select: names of checks, also as patterns (``"config_*"``); empty means all.
        skip: names of checks to leave out.
        expected_failures: check name -> why it fails, or subject -> such a mapping, besides those on the class; the
            check becomes xfailed, or xpassed if it passes, which is a failure.
        seed: of the random views and parameters.
        time_limit: seconds of processor time that one check may take on one case (60 by default); ten times as many on
            the clock.

    Returns:
        The report; its ``ok`` says whether the subjects keep their contract.

    Raises:
        RegistryError: ``obj`` is not registered, cannot be imported, or is of another type.
        ConfigError: ``select``, ``skip`` or ``expected_failures`` name a check that does not exist.
    """
    plan = Plan.of(
        tier=tier, select=select, skip=skip, expected_failures=expected_failures, seed=seed, time_limit=time_limit
    )
    subjects = subjects_of(obj, kind)
    plan.verify_subjects(subjects)
    return run(subjects, plan)


# ---------------------------------------------------------------------- what to run


def all_checks() -> list[Check]:
    """Return the checks of the kit and of the plugins; one whose name is taken is left out, with a warning."""
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
    """Which checks to run, and how.

    Attributes:
        checks: in the order in which they run.
        tier: cases of a higher tier are left out.
        expected_failures: check name -> why it fails, or subject -> such a mapping.
        seed: of the random views and parameters.
        time_limit: seconds of processor time per check and case.
        case: run only on the case whose text this is.
        stop: end after the first check with a bad result.
    """

    checks: tuple[Check, ...]
    tier: int = DEFAULT_TIER
    expected_failures: ExpectedFailures = field(default_factory=dict)
    seed: int = 0
    time_limit: float = DEFAULT_LIMIT
    case: str | None = None
    stop: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.time_limit, int | float) or not self.time_limit > 0:
            raise ConfigError(f"the time limit should be a positive number of seconds; found {self.time_limit!r}.")
        for name, reason in self.expected_failures.items():
            _verify_reasons(reason if isinstance(reason, Mapping) else {name: reason}, "expected_failures")

    @classmethod
    def of(
        cls,
        *,
        tier: int | None = None,
        select: Iterable[str] = (),
        skip: Iterable[str] = (),
        expected_failures: ExpectedFailures | None = None,
        **options: Any,
    ) -> Plan:
        """Return the plan for the selected checks; those in ``select`` may be of any tier, unless ``tier`` is given.

        Args:
            tier: run the checks up to this tier.
            select: names or patterns of checks; empty means all.
            skip: names or patterns of checks to leave out.
            expected_failures: check name -> why it fails, or subject -> such a mapping.
            **options: the other fields of the plan.

        Raises:
            ConfigError: a check or a tier that does not exist, an expected failure without a reason.
        """
        if tier not in (None, 1, 2, 3):
            raise ConfigError(f"tier should be 1, 2 or 3; found {tier!r}.")
        known = {rule_of(check).name: check for check in all_checks()}
        wanted, unwanted = _matching("select", select, known), _matching("skip", skip, known)
        for name, reason in (expected_failures or {}).items():
            _matching("expected_failures", reason if isinstance(reason, Mapping) else [name], known)
        highest = tier or (3 if wanted else DEFAULT_TIER)
        chosen = [known[name] for name in known if name in (wanted or known) and name not in unwanted]
        chosen.sort(key=lambda check: not rule_of(check).basic)
        checks = tuple(check for check in chosen if rule_of(check).tier <= highest)
        return cls(checks, highest, expected_failures or {}, **options)

    def verify_subjects(self, subjects: Sequence[Subject]) -> None:
        """Raise a ``ConfigError`` if ``expected_failures`` is for a subject that is not among these."""
        known = {name for subject in subjects for name in subject.names}
        for name, reasons in self.expected_failures.items():
            if isinstance(reasons, Mapping) and name not in known:
                raise ConfigError(
                    f"expected_failures should name subjects that are checked; found {name!r}.{nearest(name, known)}"
                )

    def expected(self, subject: Subject) -> dict[str, str]:
        """Return check name -> why it fails, of a subject: from its class, for all subjects, and for this one.

        Raises:
            ConfigError: the class names a check that does not exist, or gives no reason.
        """
        cls, _ = outcome(lambda: subject.cls)  # A check reports a class that cannot be imported.
        found = dict(getattr(cls, "expected_failures", None) or {})
        if found:
            where = f"{subject.id}.expected_failures"
            _matching(where, found, {rule_of(check).name: check for check in all_checks()})
            _verify_reasons(found, where)
        found |= {name: reason for name, reason in self.expected_failures.items() if isinstance(reason, str)}
        for name, reasons in self.expected_failures.items():
            if isinstance(reasons, Mapping) and name in subject.names:
                found |= reasons
        return found


def _verify_reasons(reasons: Mapping[str, Any], where: str) -> None:
    for name, reason in reasons.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ConfigError(f"{where}[{name!r}] should say why the check fails; found {reason!r}.")


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


#: Called when a check starts: with the subject, the rule (None: the cases are being listed) and the text of the case.
Notice = Callable[[Subject, Rule | None, str], object]


def stream(subjects: Iterable[Subject], plan: Plan, started: Notice = lambda *_: None) -> Iterator[Result]:
    """Run the plan in this process and yield each result as soon as it is known; ``started`` is called before each."""
    try:
        for subject in subjects:
            bad = False
            for event in _events(subject, plan):
                if isinstance(event, Result):
                    bad |= event.bad
                    yield event
                else:
                    started(subject, *event)
            if plan.stop and bad:
                return
    finally:
        workers.close()


def results_of(subject: Subject, check: Check, plan: Plan) -> list[Result]:
    """Run one check on the cases of one subject; expected failures become xfailed or xpassed."""
    events = _events(subject, replace(plan, checks=(check,)))
    return [event for event in events if isinstance(event, Result)]


def _events(subject: Subject, plan: Plan, first: int = 0, timeouts: int = 0) -> Iterator[Started | Result]:
    """Run the plan on one subject.

    Args:
        subject: the subject.
        plan: the plan.
        first: index of the check to begin with.
        timeouts: how many of the checks before it exceeded the time limit.
    """
    if any("interpreter" in rule_of(check).needs for check in plan.checks):
        workers.start_fresh()  # It starts while the first checks run.
    yield Started(None, "")
    expected = plan.expected(subject)
    cases = _cases(subject, plan)
    for check in plan.checks[first:]:
        rule = rule_of(check)
        if subject.kind not in rule.kinds:
            continue
        results = []
        if timeouts == MAX_TIMEOUTS:
            found = f"that {MAX_TIMEOUTS} checks before it did not finish in time, so it was left out"
            results.append(_broken(_new_result(subject, rule), f"{rule.name} should run", found, "error"))
        else:
            for case in _cases_for(rule, cases):
                name = "" if case is None else str(case)
                yield Started(rule, name)
                results.append(_execute(subject, case, name, check, plan))
                if results[-1].timed_out:
                    timeouts += 1
                    break  # The other cases would probably take as long.
        results = _with_expected_failure(results, expected.get(rule.name))
        yield from results
        if plan.stop and any(result.bad for result in results):
            return


def _with_expected_failure(results: list[Result], reason: str | None) -> list[Result]:
    """Return the results of one check as xfailed or xpassed, if it was expected to fail for this reason."""
    if reason is None:
        return results
    if any(result.bad for result in results):
        return [replace(r, status="xfailed", reason=f"{reason} ({r.reason})") if r.bad else r for r in results]
    unexpected = f"this check was expected to fail ({reason}); it passed"
    return [replace(r, status="xpassed", reason=unexpected) if r.status == "passed" else r for r in results]


def _cases(subject: Subject, plan: Plan) -> list[Case]:
    """Return the cases of a subject that the plan includes; if listing them fails, one case that says why."""
    seed = zlib.crc32(f"{plan.seed}:{subject.id}".encode())
    cases, error = attempt(lambda _: subject.cases(), seed, plan.time_limit)
    if cases is None:
        assert error is not None
        late = (f"{EXAMPLES} within {plan.time_limit:g} s", "that it did not")
        cases = [Case(problem=late if isinstance(error, TimeLimit) else (EXAMPLES, describe(error)))]
        subject.source.known.extend(cases)
    kept = [case for case in cases if case.tier <= plan.tier and plan.case in (None, str(case))]
    if plan.case is not None and not kept:
        known = "; ".join(str(case) for case in cases)
        raise ConfigError(f"case should be one of {known} for {subject.id}; found {plan.case!r}.")
    return kept


def _cases_for(rule: Rule, cases: list[Case]) -> Sequence[Case | None]:
    """Return the cases on which a check runs; None stands for the subject as a whole."""
    if rule.scope == "none":
        return [None]
    if rule.scope == "first":
        return cases[:1]
    if rule.scope == "examples":
        return [case for case in cases if case.origin in ("example", "instance")] or cases[:1]
    if rule.tier > 1:
        # Above tier 1, without the cases that cross an operator with further fabrications.
        return [case for case in cases if case.origin != "crossed"] or cases[:1]
    return cases


def _execute(subject: Subject, case: Case | None, name: str, check: Check, plan: Plan) -> Result:
    rule, start = rule_of(check), perf_counter()
    seed = zlib.crc32(f"{plan.seed}:{subject.id}:{rule.name}:{name}".encode())

    def call(output: Output) -> str | None:
        if (lack := missing(rule.needs)) is not None:
            skip(lack)
        remark = check(type(subject)(subject.source, case, seed))
        output.expect_none()
        return remark

    remark, error = attempt(call, seed, plan.time_limit)
    result = replace(_new_result(subject, rule, name), reason=remark or "", seconds=perf_counter() - start)
    return result if error is None else _ended_by(error, result, plan)


def _ended_by(error: BaseException, result: Result, plan: Plan) -> Result:
    """Return the result of a check that an exception ended."""
    match error:
        case Skip() | unittest.SkipTest():
            return replace(result, status="skipped", reason=str(error))
        case Violation():
            return _broken(result, error.should, error.found)
        case AssertionError():  # A plugin's check may use assert.
            return replace(result, status="failed", reason=describe(error))
        case TimeLimit():
            should = f"{result.check} should finish within {plan.time_limit:g} s"
            return _broken(result, should, "that it did not", "error", timed_out=True)
        case SystemExit():
            found = f"SystemExit({error.code!r})"
            return _broken(result, "the operator should not end the interpreter", found, "error")
    return replace(
        result, status="error", reason=f"the check should end without an unexpected error; found {describe(error)}"
    )


def _broken(result: Result, should: str, found: str, status: Status = "failed", *, timed_out: bool = False) -> Result:
    reason = f"{should}; found {found}"
    return replace(result, status=status, reason=reason, should=should, found=found, timed_out=timed_out)


def _new_result(subject: Subject, rule: Rule, case: str = "") -> Result:
    record = subject.source.record
    return Result(
        subject=subject.id,
        kind=subject.kind,
        distribution=record.distribution if record else None,
        version=record.version if record else None,
        check=rule.name,
        case=case,
        status="passed",
        rule=rule.summary,
    )


# ---------------------------------------------------------------------- in worker processes


class _Task(NamedTuple):
    """One subject, or its remaining checks after a worker process was lost.

    Attributes:
        subject: its index.
        first: index of the check to begin with.
        timeouts: how many of the checks before it exceeded the time limit.
        problem: why its cases cannot be listed: what should be, and what was found.
    """

    subject: int
    first: int = 0
    timeouts: int = 0
    problem: tuple[str, str] | None = None


def default_jobs(subjects: Sequence[Subject]) -> int:
    """Return how many worker processes to use for these subjects; 1 means that several are impossible or slower."""
    if len(subjects) < MIN_SUBJECTS or not several_jobs_possible(subjects):
        return 1
    return min(MAX_JOBS, cpu_count())


def several_jobs_possible(subjects: Sequence[Subject]) -> bool:
    """Whether worker processes have the subjects: forks do, a fresh process has only what is installed."""
    if workers.can_fork():
        return True
    sources = [subject.source for subject in subjects]
    installed = all(s.instance is None and s.record is not None and not s.record.local for s in sources)
    return installed and not lookup.current_snapshot().sealed


def stream_in_workers(
    subjects: Sequence[Subject], plan: Plan, started: Notice = lambda *_: None, jobs: int = 1
) -> Iterator[Result]:
    """Yield the results of ``stream`` in the same order, from worker processes.

    A check that ends its process is an error, and the next check runs.  Without forks, one job runs in this process.
    """
    if jobs == 1 and not workers.can_fork():
        yield from stream(subjects, plan, started)
        return
    tasks = deque(_Task(number) for number in range(len(subjects)))
    current = [Started(None, "")] * len(subjects)
    results: list[list[Result]] = [[] for _ in subjects]
    timeouts = [0] * len(subjects)
    finished: set[int] = set()
    stopping = False
    jobs = 1 if plan.stop else jobs  # Else results of later subjects would come too.
    method: workers.Method = "fork" if workers.can_fork() else "spawn"
    function = partial(_work, tuple(subjects), plan)
    for task, event in workers.run(function, tasks, jobs=jobs, timeout=plan.time_limit + GRACE, method=method):
        if stopping and not isinstance(event, Result):
            return
        number, subject = task.subject, subjects[task.subject]
        if isinstance(event, Result):
            results[number].append(event)
            timeouts[number] += event.timed_out
        elif isinstance(event, Started):
            current[number] = event
            started(subject, *event)
        elif isinstance(event, workers.Lost):
            lost, rest = _after_loss(subject, task, current[number], event, plan)
            current[number] = Started(None, "")
            results[number] += lost
            timeouts[number] += event.timed_out
            tasks.appendleft(rest._replace(timeouts=timeouts[number]))
        else:
            finished.add(number)
        for result in _in_order(results, finished):
            stopping |= plan.stop and result.bad
            yield result


def _work(subjects: Sequence[Subject], plan: Plan, task: _Task) -> Iterator[Started | Result]:
    """Run one task in a worker process."""
    subject = subjects[task.subject]
    if task.problem is not None:
        subject.source.known[:] = [Case(problem=task.problem)]
    return _events(subject, plan, task.first, task.timeouts)


def _after_loss(
    subject: Subject, task: _Task, current: Started, lost: workers.Lost, plan: Plan
) -> tuple[list[Result], _Task]:
    """Return the result of the check during which a worker process was lost, and a task for the remaining checks."""
    should, found = "the operator should not end the process", lost.how
    if lost.timed_out:
        should = f"{current.rule.name if current.rule else 'examples()'} should finish within {plan.time_limit:g} s"
        found = "that it did not, and could not be interrupted"
    if current.rule is None:
        if task.problem is not None:
            raise RuntimeError(f"worker processes should run; found that they end before any check, with {lost.how}")
        # Listing the cases again could end the next process too.
        return [], task._replace(problem=(f"{should} while the cases are built", found))
    result = _broken(_new_result(subject, current.rule, current.case), should, found, "error", timed_out=lost.timed_out)
    first = [rule_of(check).name for check in plan.checks].index(current.rule.name) + 1
    return _with_expected_failure([result], plan.expected(subject).get(current.rule.name)), task._replace(first=first)


def _in_order(results: list[list[Result]], finished: set[int]) -> Iterator[Result]:
    """Remove and yield the results of the subjects, up to and including the first unfinished one."""
    for number, ready in enumerate(results):
        while ready:
            yield ready.pop(0)
        if number not in finished:
            return
