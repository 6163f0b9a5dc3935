"""What ``fusionkit check`` does: runs the conformance kit, shows its progress, and writes reports."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from fusionkit._util.files import write_text
from fusionkit._util.progress import ProgressBar
from fusionkit.cli.check_report import print_report, rule_table
from fusionkit.contract.lookup import all_subjects, subjects_of
from fusionkit.contract.report import Report, Result
from fusionkit.contract.rules import Rule, rule_of
from fusionkit.contract.runner import Plan, default_jobs, several_jobs_possible, stream_in_workers
from fusionkit.contract.subject import Subject
from fusionkit.registry import Operator


def run_checks(
    *,
    names: tuple[str, ...],
    kind: Operator | None,
    jobs: int | None,
    json_file: Path | None,
    junit_file: Path | None,
    listed: bool,
    verbose: bool,
    **wanted: Any,
) -> int:
    """Check operators and print the report; return the exit status.  The arguments are the options of the command."""
    # With JSON on stdout, the report goes to stderr.
    console = Console(file=sys.stderr if json_file == Path("-") else sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 200  # In a file there is no need to wrap at 80 columns.
    if listed:
        _list(console, json_file, wanted)
        return 0
    plan = Plan.of(**wanted)
    start = perf_counter()
    if os.getcwd() not in sys.path:  # As python -m does: module:Class is often in a file of this folder.
        sys.path.insert(0, os.getcwd())
    subjects = subjects_of(list(names), kind) if names else all_subjects(kind)
    if plan.stop or not several_jobs_possible(subjects):
        jobs = 1
    report = Report(_checked(subjects, plan, jobs or default_jobs(subjects)))
    print_report(report, console, plan, seconds=perf_counter() - start, verbose=verbose)
    _write(json_file, report.to_json())
    if junit_file:
        write_text(junit_file, report.to_junit())
    return 0 if report.ok else 1


def _write(file: Path | None, text: str) -> None:
    if file == Path("-"):
        print(text)
    elif file:
        write_text(file, text + "\n")


def _list(console: Console, json_file: Path | None, wanted: dict[str, Any]) -> None:
    plan = Plan.of(tier=wanted["tier"] or 3, select=wanted["select"], skip=wanted["skip"])
    rules = [rule_of(check) for check in plan.checks]
    if json_file is None:
        console.print(rule_table(rules))
        return
    rows = [
        {"check": r.name, "tier": r.tier, "kinds": list(r.kinds), "needs": list(r.needs), "rule": r.summary}
        for r in rules
    ]
    _write(json_file, json.dumps(rows, indent=2))


def _checked(subjects: Sequence[Subject], plan: Plan, jobs: int) -> list[Result]:
    """Return the results; on a terminal with a progress bar, and with a line for every rule that is broken."""
    total = sum(subject.kind in rule_of(check).kinds for subject in subjects for check in plan.checks)
    results: list[Result] = []
    begun: set[tuple[str, str, str]] = set()
    broken: set[tuple[str, str, str]] = set()
    with ProgressBar(total, shown=sys.stderr.isatty()) as progress:

        def started(subject: Subject, rule: Rule | None, case: str) -> None:
            if rule is not None:
                begun.add((subject.kind, subject.id, rule.name))  # Once for all cases of a check.
                progress.update(len(begun), f"{subject.id} {rule.name}", f"{len(begun)}/{total}")

        for result in stream_in_workers(subjects, plan, started, jobs):
            results.append(result)
            key = (result.kind, result.subject, result.check)
            if result.bad and key not in broken:
                broken.add(key)
                progress.say(f"{result.status} {result.check} of {result.subject}")
    return results
