"""What ``fusionkit check`` prints: a row per subject, the broken rules with the likely cause first, and a summary."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import get_args

from rich.console import Console
from rich.table import Table

from fusionkit.contract.report import Report, Result, Status
from fusionkit.contract.rules import rule_of
from fusionkit.contract.runner import DEFAULT_LIMIT, all_checks
from fusionkit.contract.subject import UNBUILT

__all__ = ["plain", "show", "table"]

#: How many broken rules of a subject, and findings of a rule, are printed in full.
RULES, FINDINGS = 5, 2

#: Instead of the advice of a rule that needs an operator, where there is none.
MEND_CONSTRUCTOR = "Mend the constructor first: what it does not build cannot be checked."

#: The columns that are always there; the others are if there is something in them.
COLUMNS: tuple[Status, ...] = ("passed", "failed", "error", "skipped")


def show(report: Report, console: Console, options: argparse.Namespace, seconds: float) -> None:
    """Print a report.

    Args:
        report: of the run.
        console: on which.
        options: of the command line; ``verbose`` prints every finding and the reasons of what was skipped.
        seconds: that the run took.
    """
    console.print(table(report.results))
    hidden = 0
    broken = [_Broken(results, report.results) for results in _grouped(report.bad)]
    unbuilt = groupby((rule for rule in broken if rule.unbuilt), lambda rule: rule.subject)
    rest = set() if options.verbose else {rule for _, (_, *rules) in unbuilt for rule in rules}
    told = [rule for rule in broken if rule not in rest]
    for _, rules in groupby(told, lambda rule: rule.subject):
        for number, rule in enumerate(rules):
            findings = _findings(rule.bad)
            shown = len(findings) if options.verbose else FINDINGS if number < RULES else 0
            if shown:
                _print_rule(rule, findings[:shown], console, options)
            hidden += sum(map(len, findings[shown:]))
    if hidden:
        words = f"{hidden} more findings are not shown" if hidden > 1 else "1 more finding is not shown"
        console.print(f"\n{words}: -v prints them all, and --json FILE writes them.", highlight=False)
    if told:
        _print_rules(told, console, options)
    if rest:
        words = "1 more rule needs" if len(rest) == 1 else f"{len(rest)} more rules need"
        console.print(f"{words} what the constructor does not build: -v lists them.\n", highlight=False)
    if options.verbose:
        for reason, count in _skips(report):
            console.print(f"skipped {count}: {reason}", markup=False, highlight=False)
    words = ", ".join(f"{count} {status}" for status, count in _counts(report.results)) or "nothing to check"
    verdict = "[green]ok[/]" if report.ok else "[red]failed[/]"
    console.print(f"{verdict}: {words} in {seconds:.1f} s", highlight=False)


def table(results: Sequence[Result], rows: int | None = None) -> Table:
    """Return the table of subjects, or its last rows."""
    seen = {status for status, _ in _counts(results)}
    columns = [status for status in get_args(Status) if status in COLUMNS or status in seen]
    made = Table(box=None, pad_edge=False)
    made.add_column("subject", overflow="fold")
    made.add_column("kind")
    for column in (*columns, "seconds", ""):
        made.add_column(column, justify="right")
    groups = [list(group) for _, group in groupby(results, lambda result: (result.subject, result.kind))]
    for group in groups[-rows:] if rows else groups:
        counts = Counter(result.status for result in group)
        seconds = sum(result.seconds for result in group)
        verdict = "[red]failed[/]" if any(result.bad for result in group) else "[green]ok[/]"
        numbers = [str(counts[status]) for status in columns]
        made.add_row(group[0].subject, group[0].kind, *numbers, f"{seconds:.1f}", verdict)
    return made


def plain(text: str) -> str:
    """Return a text of a docstring without its marks."""
    return text.replace("`", "")


class _Broken:
    """A rule that a subject breaks.

    Attributes:
        subject: which, with its kind.
        bad: the results that say so.
        of: how many results the check has on the subject.
    """

    def __init__(self, bad: list[Result], results: Iterable[Result]) -> None:
        first = bad[0]
        self.subject = (first.kind, first.subject)
        self.bad = bad
        self.of = sum(_rule(result) == _rule(first) for result in results)

    @property
    def unbuilt(self) -> bool:
        """Whether nothing was found but that the constructor fails."""
        return all(result.should.startswith(UNBUILT) for result in self.bad)

    @property
    def counts(self) -> str:
        """How many results are bad, as ``2 failed, 1 error of 6``."""
        words = ", ".join(f"{count} {status}" for status, count in _counts(self.bad))
        return f"{words} of {self.of}"


def _rule(result: Result) -> tuple[str, str, str]:
    return result.kind, result.subject, result.check


def _grouped(bad: Iterable[Result]) -> list[list[Result]]:
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in bad:
        groups.setdefault(_rule(result), []).append(result)
    return list(groups.values())


def _findings(bad: Iterable[Result]) -> list[list[Result]]:
    """Return the results of a rule, those with one reason together."""
    found: dict[str, list[Result]] = {}
    for result in bad:
        found.setdefault(result.reason, []).append(result)
    return list(found.values())


def _counts(results: Iterable[Result]) -> list[tuple[Status, int]]:
    counts = Counter(result.status for result in results)
    return [(status, counts[status]) for status in get_args(Status) if counts[status]]


def _print_rule(rule: _Broken, findings: list[list[Result]], console: Console, options: argparse.Namespace) -> None:
    """Print a broken rule, and the first result of each finding."""
    first = rule.bad[0]
    mend = (
        MEND_CONSTRUCTOR
        if rule.unbuilt
        else next((known.mend for known in map(rule_of, all_checks()) if known.name == first.check), "")
    )
    console.print(f"\n[red]{first.status}[/] [bold]{first.check}[/] of {first.subject}", highlight=False)
    lines = [("rule", plain(first.rule)), *([("mend", plain(mend))] if mend else [])]
    for finding in findings:
        result, more = finding[0], len(finding) - 1
        lines.append(("case", f"{result.case or 'the whole subject'}{f' and {more} more' if more else ''}"))
        if result.should:
            lines += [("expected", result.should), ("found", result.found)]
        else:
            lines.append(("reason", result.reason))
        lines.append(("rerun", _rerun(result, options, result.case)))
    for word, text in lines:
        console.print(f"  {word:<9} {text}", markup=False, highlight=False, soft_wrap=True)


def _print_rules(broken: list[_Broken], console: Console, options: argparse.Namespace) -> None:
    """Print the list of broken rules, each with the command that runs its check on all cases."""
    several = len({rule.subject for rule in broken}) > 1
    hint = ", the likely cause of the others first; -x stops at the first failure" if len(broken) > 1 else ""
    console.print(f"\n[bold]broken rules[/] ({len(broken)}{hint})", highlight=False)
    names = [f"{rule.bad[0].subject} {rule.bad[0].check}" if several else rule.bad[0].check for rule in broken]
    width, counted = max(map(len, names)), max(len(rule.counts) for rule in broken)
    for name, rule in zip(names, broken, strict=True):
        command = _rerun(rule.bad[0], options, "")
        console.print(
            f"  {name:<{width}}  {rule.counts:<{counted}}  {command}", markup=False, highlight=False, soft_wrap=True
        )
    console.print()


def _rerun(result: Result, options: argparse.Namespace, case: str) -> str:
    words = ["fusionkit", "check", result.subject, "--kind", result.kind, "--select", result.check]
    if ":" in result.subject:
        del words[3:5]
    if case:
        words += ["--case", case]
    if options.seed:
        words += ["--seed", str(options.seed)]
    if options.time_limit != DEFAULT_LIMIT:
        words += ["--time-limit", f"{options.time_limit:g}"]
    return shlex.join(words)


def _skips(report: Report) -> list[tuple[str, int]]:
    return sorted(Counter(result.reason for result in report.results if result.status == "skipped").items())
