"""The report of ``fusionkit check``: a row per subject, the broken rules with the likely cause first, and a summary."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from fusionkit.contract.report import Report, Result, Status
from fusionkit.contract.rules import Rule, rule_of
from fusionkit.contract.runner import DEFAULT_LIMIT, Plan, all_checks
from fusionkit.contract.subject import UNBUILT

#: The number of broken rules of a subject, and of findings of a rule, that are printed in full.
RULES, FINDINGS = 5, 2

#: The advice for a rule that cannot be checked because the constructor fails.
MEND_CONSTRUCTOR = "Mend the constructor first: what it does not build cannot be checked."

#: The columns that are always shown; the others are shown unless they are empty.
COLUMNS: tuple[Status, ...] = ("passed", "failed", "error", "skipped")


class BrokenRule:
    """A rule that a subject breaks.

    Attributes:
        first: the first bad result.
        subject: the kind and the name of the subject.
        unbuilt: whether every bad result says that the constructor fails.
        counts: the number of bad results, as ``2 failed, 1 error of 6``.
        findings: the bad results, grouped by their reason.
    """

    def __init__(self, bad: list[Result], total: int) -> None:
        self.first = bad[0]
        self.subject = (self.first.kind, self.first.subject)
        self.unbuilt = all(result.should.startswith(UNBUILT) for result in bad)
        self.counts = f"{_counted(bad)} of {total}"
        self.findings = _grouped(bad, "reason")


def print_report(report: Report, console: Console, plan: Plan, *, seconds: float, verbose: bool) -> None:
    """Print a report.

    Args:
        report: the results.
        console: where to print.
        plan: of the run; its seed and time limit are in the commands that repeat a result.
        seconds: the time that the run took.
        verbose: print every finding, and why checks were skipped.
    """
    console.print(_subject_table(report.results))
    totals = Counter((result.kind, result.subject, result.check) for result in report.results)
    groups = _grouped(report.bad, "kind", "subject", "check")
    broken = [BrokenRule(bad, totals[bad[0].kind, bad[0].subject, bad[0].check]) for bad in groups]
    shown = broken if verbose else _without_consequences(broken)
    if hidden := _print_findings(shown, console, plan, verbose):
        console.print(f"\nresults not shown: {hidden}; -v prints them, and --json FILE writes them.")
    if shown:
        _print_rules(shown, console, plan)
    if left := len(broken) - len(shown):
        console.print(f"rules not shown, because the constructor fails: {left}; -v lists them.\n")
    if verbose:
        skips = Counter(result.reason for result in report.results if result.status == "skipped")
        for reason, count in sorted(skips.items()):
            console.print(f"skipped {count}: {reason}", markup=False)
    verdict = "[green]ok[/]" if report.ok else "[red]failed[/]"
    words = _counted(report.results) or "nothing to check"
    console.print(f"{verdict}: {words} in {seconds:.1f} s")


def _subject_table(results: Sequence[Result]) -> Table:
    found = {result.status for result in results}
    columns = [status for status in get_args(Status) if status in COLUMNS or status in found]
    table = Table(box=None, pad_edge=False)
    table.add_column("subject", overflow="fold")
    table.add_column("kind")
    for column in (*columns, "seconds", ""):
        table.add_column(column, justify="right")
    for group in _grouped(results, "subject", "kind"):
        counts = Counter(result.status for result in group)
        seconds = sum(result.seconds for result in group)
        verdict = "[red]failed[/]" if any(result.bad for result in group) else "[green]ok[/]"
        numbers = [str(counts[status]) for status in columns]
        table.add_row(group[0].subject, group[0].kind, *numbers, f"{seconds:.1f}", verdict)
    return table


def rule_table(rules: Iterable[Rule]) -> Table:
    """Return the table of ``--list``."""
    table = Table("check", "tier", "of", "needs", "rule", box=None, pad_edge=False)
    for rule in rules:
        of = "both" if len(rule.kinds) == 2 else ", ".join(rule.kinds)
        table.add_row(rule.name, str(rule.tier), of, ", ".join(rule.needs), _unmarked(rule.summary))
    return table


def _unmarked(text: str) -> str:
    """Return the text of a docstring without its backticks."""
    return text.replace("`", "")


def _grouped(results: Iterable[Result], *attributes: str) -> list[list[Result]]:
    """Return the results in groups of equal attributes, in the order of their first ones."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(getattr(result, name) for name in attributes), []).append(result)
    return list(groups.values())


def _counted(results: Iterable[Result]) -> str:
    counts = Counter(result.status for result in results)
    return ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])


def _without_consequences(broken: list[BrokenRule]) -> list[BrokenRule]:
    """Keep, of the rules of a subject that are broken because its constructor fails, only the first."""
    first: dict[tuple[str, str], BrokenRule] = {}
    for rule in broken:
        if rule.unbuilt:
            first.setdefault(rule.subject, rule)
    return [rule for rule in broken if not rule.unbuilt or rule is first[rule.subject]]


def _print_findings(broken: list[BrokenRule], console: Console, plan: Plan, verbose: bool) -> int:
    """Print the findings of the first rules of each subject, or all; return the number of results not shown."""
    hidden = 0
    for _, rules in groupby(broken, lambda rule: rule.subject):
        for number, rule in enumerate(rules):
            count = len(rule.findings) if verbose else FINDINGS if number < RULES else 0
            if count:
                _print_rule(rule, rule.findings[:count], console, plan)
            hidden += sum(map(len, rule.findings[count:]))
    return hidden


def _print_rule(rule: BrokenRule, findings: list[list[Result]], console: Console, plan: Plan) -> None:
    """Print a broken rule, and the first result of each finding."""
    first = rule.first
    console.print(f"\n[red]{first.status}[/] [bold]{first.check}[/] of {first.subject}")
    lines = [("rule", _unmarked(first.rule))]
    known = (known.mend for known in map(rule_of, all_checks()) if known.name == first.check)
    if mend := MEND_CONSTRUCTOR if rule.unbuilt else next(known, ""):
        lines.append(("mend", _unmarked(mend)))
    for result, *more in findings:
        lines.append(("case", f"{result.case or 'the whole subject'}{f' and {len(more)} more' if more else ''}"))
        if result.should:
            lines += [("expected", result.should), ("found", result.found)]
        else:
            lines.append(("reason", result.reason))
        lines.append(("rerun", _rerun(plan, result, result.case)))
    for word, text in lines:
        console.print(f"  {word:<9} {text}", markup=False, soft_wrap=True)


def _rerun(plan: Plan, result: Result, case: str = "") -> str:
    """Return the command that runs the check of a result again, on one case or on all."""
    kind = [] if ":" in result.subject else ["--kind", result.kind]
    words = ["fusionkit", "check", result.subject, *kind, "--select", result.check]
    words += ["--case", case] if case else []
    words += ["--seed", str(plan.seed)] if plan.seed else []
    words += ["--time-limit", f"{plan.time_limit:g}"] if plan.time_limit != DEFAULT_LIMIT else []
    return shlex.join(words)


def _print_rules(broken: list[BrokenRule], console: Console, plan: Plan) -> None:
    """Print the list of broken rules, each with the command that runs its check on all cases."""
    several = len({rule.subject for rule in broken}) > 1
    hint = ", the likely cause of the others first; -x stops at the first failure" if len(broken) > 1 else ""
    console.print(f"\n[bold]broken rules[/] ({len(broken)}{hint})")
    names = [f"{rule.first.subject} {rule.first.check}" if several else rule.first.check for rule in broken]
    width, counted = max(map(len, names)), max(len(rule.counts) for rule in broken)
    for name, rule in zip(names, broken, strict=True):
        line = f"  {name:<{width}}  {rule.counts:<{counted}}  {_rerun(plan, rule.first)}"
        console.print(line, markup=False, soft_wrap=True)
    console.print()
