"""Checks several subjects at once, each in one of a few worker processes.

For what is installed only: a worker is a fresh process, which does not see what was registered at run time.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fusionkit.contract import isolation
from fusionkit.contract.report import Result
from fusionkit.contract.rules import rule_of
from fusionkit.contract.runner import Plan, failed
from fusionkit.contract.runner import stream as stream_here
from fusionkit.contract.subject import Subject, subjects_of
from fusionkit.registry import lookup

__all__ = ["default_jobs", "possible", "stream"]

#: Each worker holds torch and its compiler, more than half a gigabyte.
MOST = 2
#: Below this many subjects starting workers costs more than they save.
WORTHWHILE = 4


def default_jobs(subjects: Sequence[Subject]) -> int:
    """Return how many workers to use for these subjects."""
    if len(subjects) < WORTHWHILE or not possible(subjects):
        return 1
    return min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def possible(subjects: Sequence[Subject]) -> bool:
    """Whether a fresh process sees all of the subjects."""
    return not lookup.current_snapshot().sealed and all(
        subject.source.record is not None and not subject.source.record.local and subject.source.instance is None
        for subject in subjects
    )


def stream(
    subjects: Sequence[Subject],
    options: Mapping[str, Any],
    jobs: int,
    done: Callable[[Subject, list[Result]], None] = lambda subject, results: None,
) -> Iterator[list[Result]]:
    """Yield the results of each subject, in the order of the subjects.

    Args:
        subjects: registered ones.
        options: of ``Plan.of``.
        jobs: number of workers.
        done: told as soon as a subject is finished.
    """
    found: dict[int, list[Result]] = {}
    for index, results in _finished(subjects, options, jobs):
        done(subjects[index], results)
        found[index] = results
    for index in range(len(subjects)):
        yield found[index]


def _finished(subjects: Sequence[Subject], options: Mapping[str, Any], jobs: int) -> Iterator[tuple[int, list[Result]]]:
    lost = []
    with _pool(jobs) as pool:
        futures: dict[Future[list[Result]], int] = {
            pool.submit(_check, subject.kind, subject.id, dict(options)): index
            for index, subject in enumerate(subjects)
        }
        try:
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except BrokenProcessPool:  # One subject ended the process, and with it all the others that were left.
                    lost.append(futures[future])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    plan = Plan.of(**options)
    for index in sorted(lost):
        yield index, _alone(subjects[index], plan, options)


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _check(kind: str, name: str, options: dict[str, Any]) -> list[Result]:
    """Check one subject; runs in a worker, which ends where nothing else can interrupt a check."""
    plan = Plan.of(**options)
    with open(os.devnull, "w") as nowhere:

        def started(*_: object) -> None:
            faulthandler.dump_traceback_later(plan.time_limit + isolation.GRACE, exit=True, file=nowhere)

        try:
            return list(stream_here(subjects_of(name, kind), plan, started))
        finally:
            faulthandler.cancel_dump_traceback_later()


def _alone(subject: Subject, plan: Plan, options: Mapping[str, Any]) -> list[Result]:
    """Check a subject that may end the process."""
    if isolation.possible():
        return list(isolation.stream([subject], plan))
    with _pool(1) as pool:
        try:
            return pool.submit(_check, subject.kind, subject.id, dict(options)).result()
        except BrokenProcessPool:
            rules = [rule_of(check) for check in plan.checks if subject.kind in rule_of(check).kinds]
            found = "that a worker was lost while it was checked"
            return [failed(subject, rule, "", isolation.ENDS, found, status="error") for rule in rules]
