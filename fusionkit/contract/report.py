"""The results of a run: their summary, and their forms in JSON and JUnit."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

SCHEMA_VERSION = 1
#: The JSON schema of what ``Report.to_json`` writes.
SCHEMA = Path(__file__).with_name("report.schema.json")

Status = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]
BAD: tuple[Status, ...] = ("failed", "error", "xpassed")


@dataclass(frozen=True, slots=True)
class Result:
    """One check on one case of one subject.

    Attributes:
        subject: ``<distribution>/<name>``, or ``module:Class`` for what is not registered.
        kind: fusion or fabrication.
        distribution: the package that offers it; None for what is not registered.
        version: of the distribution; None for what is not registered.
        check: the name of the check.
        case: the arguments with which the operator was built; empty for a check of the whole subject.
        status: passed, failed (the rule is broken), error (the check came to no verdict), skipped, xfailed or xpassed.
        reason: why, in one sentence; if passed, empty or a remark.
        seconds: how long the check took.
        should: the first part of the reason, if it has two; not in the JSON.
        found: the second part of the reason; not in the JSON.
        rule: the summary of the rule; not in the JSON.
        timed_out: whether the check exceeded the time limit; not in the JSON.
    """

    subject: str
    kind: str
    distribution: str | None
    version: str | None
    check: str
    case: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    should: str = field(default="", compare=False)
    found: str = field(default="", compare=False)
    rule: str = field(default="", compare=False)
    timed_out: bool = field(default=False, compare=False)

    @property
    def bad(self) -> bool:
        """Whether it makes the report fail."""
        return self.status in BAD

    def to_dict(self) -> dict[str, Any]:
        """Return the record of the JSON report."""
        record = {column.name: getattr(self, column.name) for column in fields(self) if column.compare}
        return {**record, "seconds": round(self.seconds, 6)}


@dataclass(frozen=True)
class Report:
    """The results of a run.

    Attributes:
        results: one per check and case, in the order in which they ran.
    """

    results: list[Result]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, erred or passed unexpectedly."""
        return not self.bad

    @property
    def bad(self) -> list[Result]:
        """The results that make the report fail."""
        return [result for result in self.results if result.bad]

    @property
    def summary(self) -> dict[str, Any]:
        """The number of results of each status, and the seconds that they took."""
        counts = Counter(result.status for result in self.results)
        return {
            "ok": self.ok,
            "total": len(self.results),
            **{status: counts[status] for status in get_args(Status)},
            "subjects": len({(result.kind, result.subject) for result in self.results}),
            "seconds": round(sum(result.seconds for result in self.results), 3),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report in JSON types; ``report.schema.json`` is its schema."""
        return {
            "schema_version": SCHEMA_VERSION,
            "results": [result.to_dict() for result in self.results],
            "summary": self.summary,
        }

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_junit(self) -> str:
        """Return the report as JUnit XML, one suite per subject and one case per result."""
        suites = ET.Element("testsuites", {"name": "fusionkit check", **_totals(self.results)})
        groups: dict[str, list[Result]] = {}
        for result in self.results:
            groups.setdefault(f"{result.kind} {result.subject}", []).append(result)
        for name, results in groups.items():
            suite = ET.SubElement(suites, "testsuite", {"name": _text(name), **_totals(results)})
            suite.extend(map(_testcase, results))
        ET.indent(suites)
        return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status in get_args(Status) if (count := self.summary[status]))
        lines = [f"<Report: {counts or 'no results'}>"]
        lines += [f"  {r.subject} {r.check} [{r.case}] {r.status}: {r.reason}" for r in self.bad]
        return "\n".join(lines)


def _totals(results: list[Result]) -> dict[str, str]:
    counts = Counter(result.status for result in results)
    return {
        "tests": str(len(results)),
        "failures": str(counts["failed"] + counts["xpassed"]),
        "errors": str(counts["error"]),
        "skipped": str(counts["skipped"] + counts["xfailed"]),
        "time": f"{sum(result.seconds for result in results):.3f}",
    }


def _testcase(result: Result) -> ET.Element:
    name = f"{result.check}[{result.case}]" if result.case else result.check
    owner = f"{result.kind}.{result.subject}".replace("/", ".").replace(":", ".")
    case = ET.Element("testcase", classname=_text(owner), name=_text(name), time=f"{result.seconds:.3f}")
    tags = {"failed": "failure", "xpassed": "failure", "error": "error", "skipped": "skipped", "xfailed": "skipped"}
    if tag := tags.get(result.status):
        child = ET.SubElement(case, tag, message=_text(result.reason), type=result.status)
        child.text = _text(f"{result.rule}\n{result.reason}".strip())
    return case


def _text(text: str) -> str:
    """Return ``text`` without the characters that XML 1.0 cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)
