"""The command ``fusionkit check``: runs the conformance kit, shows its progress, and writes reports."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import click
from rich.console import Console

from fusionkit._util.files import write_text
from fusionkit._util.progress import ProgressBar
from fusionkit.cli.check_report import print_report, rule_table
from fusionkit.cli.commands import kind_option, output_file
from fusionkit.contract.lookup import all_subjects, subjects_of
from fusionkit.contract.report import Report, Result
from fusionkit.contract.rules import Rule, rule_of
from fusionkit.contract.runner import DEFAULT_LIMIT, Plan, default_jobs, several_jobs_possible, stream_in_workers
from fusionkit.contract.subject import Subject
from fusionkit.registry import Kind

EPILOG = """\b
Examples:
  fusionkit check                                       everything that is registered
  fusionkit check summation --tier 1                    one operator, the quick checks
  fusionkit check my_package.gram:Gram                  a class that is not registered
  fusionkit check gram --select 'config_*' --json -     some checks, as JSON
  fusionkit check --list                                the checks, their tiers and rules

\b
Exit status: 0 if every check passed or was skipped, 1 if one failed, 2 on wrong usage."""


def _names(ctx: click.Context, param: click.Parameter, given: Iterable[str]) -> list[str]:
    return [name.strip() for one in given for name in one.split(",") if name.strip()]


@click.command(epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@kind_option
@click.option("--tier", type=click.IntRange(1, 3), help="Run checks up to this tier (default: 2).")
@click.option("--select", multiple=True, callback=_names, metavar="CHECK", help="Only these checks; patterns too.")
@click.option("--skip", multiple=True, callback=_names, metavar="CHECK", help="Leave out these checks.")
@click.option("--case", help="Only this case, such as 'dims=[4, 4]'.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random views and parameters.")
@click.option("--time-limit", type=float, default=DEFAULT_LIMIT, show_default=True, help="Seconds per check and case.")
@click.option("-x", "--exitfirst", "stop", is_flag=True, help="Stop at the first failure.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="Worker processes (default: at most 2).")
@click.option("--json", "json_file", callback=output_file, metavar="FILE", help="Write JSON; - is the standard output.")
@click.option("--junit", "junit_file", callback=output_file, metavar="FILE", help="Write JUnit XML.")
@click.option("--list", "listed", is_flag=True, help="List the checks and run nothing.")
@click.option("-v", "--verbose", is_flag=True, help="Print every finding, and why checks were skipped.")
def check(
    names: tuple[str, ...],
    kind: Kind | None,
    jobs: int | None,
    json_file: Path | None,
    junit_file: Path | None,
    listed: bool,
    verbose: bool,
    **wanted: Any,
) -> int:
    """Verify that operators keep their contract.

    NAME is a registered name or module:Class; by default everything that is registered is checked.
    """
    # With JSON on stdout, the report goes to stderr.
    console = Console(file=sys.stderr if json_file == Path("-") else sys.stdout)
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
