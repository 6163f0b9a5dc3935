"""``fusionkit check``: runs the conformance kit, shows a table, and writes reports."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fusionkit._util.files import write_text
from fusionkit.cli.arguments import Parser, check_folder
from fusionkit.contract.runner import DEFAULT_LIMIT

if TYPE_CHECKING:
    from rich.console import Console, Group

    from fusionkit.contract.report import Result
    from fusionkit.contract.runner import Plan
    from fusionkit.contract.subject import Subject

__all__ = ["main"]

EPILOG = """\
examples:
  fusionkit check                                       everything that is registered
  fusionkit check summation --tier 1                    one operator, the quick checks
  fusionkit check my_package.gram:Gram                  a class that is not registered
  fusionkit check gram --select 'config_*' --json -     some checks, as JSON
  fusionkit check --list                                the checks, their tiers and rules

exit status: 0 if every check passed or was skipped, 1 if one failed, 2 on wrong usage
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status.

    Raises:
        RegistryError: a name that means nothing.
        ConfigError: a check, or a folder for a report, that does not exist.
    """
    options = _parser().parse_args(argv)
    for path in (options.json, options.junit):
        check_folder(None if path in (None, "-") else Path(path))
    from rich.console import Console

    # With JSON on the standard output, the table goes to the other one.  Fixed here: checks redirect both meanwhile.
    console = Console(file=sys.stderr if options.json == "-" else sys.stdout)
    if not console.is_terminal:
        console.width = 200  # Nobody wraps a file at 80 columns.
    if options.list:
        return _list(options, console)
    from fusionkit.cli.check_display import show
    from fusionkit.contract.lookup import all_subjects, subjects_of
    from fusionkit.contract.report import Report
    from fusionkit.contract.runner import Plan

    wanted: dict[str, Any] = {
        "tier": options.tier,
        "select": _names(options.select),
        "skip": _names(options.skip),
        "seed": options.seed,
        "time_limit": options.time_limit,
        "case": options.case,
        "stop": options.exitfirst,
    }
    plan = Plan.of(**wanted)
    start = perf_counter()
    if os.getcwd() not in sys.path:  # As python -m does: module:Class is often a file of the folder.
        sys.path.insert(0, os.getcwd())
    subjects = subjects_of(options.names, options.kind) if options.names else all_subjects(options.kind)
    report = Report(_checked(subjects, plan, _jobs(options, subjects), console))
    show(report, console, options, perf_counter() - start)
    if options.json == "-":
        print(report.to_json())
    elif options.json:
        write_text(Path(options.json), report.to_json() + "\n")
    if options.junit:
        write_text(Path(options.junit), report.to_junit())
    return 0 if report.ok else 1


def _parser() -> Parser:
    parser = Parser(
        prog="fusionkit check",
        description="Verify that operators keep their contract.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="a registered name or module:Class; default: everything registered")
    add("--kind", choices=("fusion", "fabrication"), help="only this kind")
    add("--tier", type=int, choices=(1, 2, 3), help="run checks up to this tier (default 2)")
    add("--select", action="append", default=[], metavar="CHECK", help="only these checks; patterns and commas work")
    add("--skip", action="append", default=[], metavar="CHECK", help="leave these checks out")
    add("--case", help="only the case that reads so, such as 'dims=[4, 4]'")
    add("--json", metavar="FILE", help="write the results as JSON; - is the standard output")
    add("--junit", metavar="FILE", help="write the results as JUnit XML")
    add("--list", action="store_true", help="list the checks and run nothing")
    add("-x", "--exitfirst", action="store_true", help="stop at the first failure")
    add("-j", "--jobs", type=int, metavar="N", help="worker processes (default: up to 2, for 4 operators or more)")
    add("--seed", type=int, default=0, help="of the random views and parameters (default 0)")
    add("--time-limit", type=float, default=DEFAULT_LIMIT, metavar="S", help="seconds per check and case (default 60)")
    add("--verbose", "-v", action="store_true", help="print every finding, and why checks were skipped")
    return parser


def _names(given: Iterable[str]) -> list[str]:
    return [name.strip() for one in given for name in one.split(",") if name.strip()]


def _list(options: argparse.Namespace, console: Console) -> int:
    from rich.table import Table

    from fusionkit.cli.check_display import plain
    from fusionkit.contract.rules import rule_of
    from fusionkit.contract.runner import Plan

    plan = Plan.of(tier=options.tier or 3, select=_names(options.select), skip=_names(options.skip))
    rules = [rule_of(check) for check in plan.checks]
    if options.json:
        text = json.dumps(
            [
                {"check": r.name, "tier": r.tier, "kinds": list(r.kinds), "needs": list(r.needs), "rule": r.summary}
                for r in rules
            ],
            indent=2,
        )
        if options.json == "-":
            print(text)
        else:
            write_text(Path(options.json), text + "\n")
        return 0
    table = Table("check", "tier", "of", "needs", "rule", box=None, pad_edge=False)
    for r in rules:
        of = "both" if len(r.kinds) == 2 else ", ".join(r.kinds)
        table.add_row(r.name, str(r.tier), of, ", ".join(r.needs), plain(r.summary))
    console.print(table)
    return 0


# ---------------------------------------------------------------------- running


def _jobs(options: argparse.Namespace, subjects: list[Subject]) -> int:
    from fusionkit.contract.runner import default_jobs, several_jobs_possible
    from fusionkit.errors import ConfigError

    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs should be at least 1; found {options.jobs}.")
    if options.exitfirst or not several_jobs_possible(subjects):
        return 1
    return options.jobs or default_jobs(subjects)


def _checked(subjects: list[Subject], plan: Plan, jobs: int, console: Console) -> list[Result]:
    """Return the results; on a terminal with a progress bar that says what is running."""
    from fusionkit.contract.rules import Rule, rule_of
    from fusionkit.contract.runner import isolated

    total = sum(subject.kind in rule_of(check).kinds for subject in subjects for check in plan.checks)
    results: list[Result] = []
    begun: set[tuple[str, str, str]] = set()
    with _Live(console, total) as live:

        def started(subject: Subject, rule: Rule | None, case: str) -> None:
            # Not once more for every case of a check.
            if rule is not None and (key := (subject.kind, subject.id, rule.name)) not in begun:
                begun.add(key)
                live.step(f"{subject.id} {rule.name}", results)

        for result in isolated(subjects, plan, started, jobs):
            results.append(result)
    return results


class _Live:
    """On a terminal, the table of what is done and a progress bar; elsewhere nothing."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.shown = console.is_terminal
        self.rows = max(3, console.height - 6)
        self.results: list[Result] = []
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self.task = self.progress.add_task("", total=total)
        # Checks redirect the streams themselves; the table is printed again, whole, at the end.
        self.live = Live(
            get_renderable=self.render, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> _Live:
        if self.shown:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.live.stop()

    def step(self, text: str, results: list[Result], steps: int = 1) -> None:
        """Say what is running, and what the results so far are; shown at the next refresh, a quarter of a second on."""
        self.progress.update(self.task, description=text, advance=steps)
        self.results = results

    def render(self) -> Group:
        """Return what is shown."""
        from rich.console import Group

        from fusionkit.cli.check_display import table

        return Group(table(list(self.results), self.rows), self.progress)
