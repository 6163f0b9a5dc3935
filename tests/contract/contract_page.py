"""Makes the generated part of ``docs/contract.md``: ``python -m tests.contract.contract_page docs/contract.md``."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path

from fusionkit.contract.checks import CHECKS, FAMILIES, checks_of
from fusionkit.contract.rules import Rule, rule_of
from fusionkit.fusion import Traits

#: What follows it in the page is generated.
MARK = "<!-- What follows is made from docstrings. -->\n"


def generated() -> str:
    """Return the tables of traits and checks, and a section for each check."""
    parts = [f"### What each trait promises\n\n{_traits()}", f"## The checks\n\n{_overview()}"]
    for family in FAMILIES:
        title = (inspect.getdoc(family) or "").partition("\n")[0].rstrip(".")
        parts.append(f"### {title}\n\n" + "\n".join(map(_section, map(rule_of, checks_of(family)))))
    return "\n".join(parts)


def _traits() -> str:
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(Traits) or "", re.MULTILINE)
    promises = {name: " ".join(text.replace("``", "`").split()).rstrip(".") for name, text in found}
    rows = (f"| `{field.name}` | {promises[field.name]} |\n" for field in fields(Traits))
    return "| trait | promise |\n|---|---|\n" + "".join(rows)


def _overview() -> str:
    rows = (
        f"| [{rule.name}](#{rule.name}) | {rule.tier} | {_of(rule)} | {', '.join(rule.needs)} | {rule.summary} |\n"
        for rule in map(rule_of, CHECKS)
    )
    return "| check | tier | of | needs | rule |\n|---|---|---|---|---|\n" + "".join(rows)


def _of(rule: Rule) -> str:
    return "both" if len(rule.kinds) == 2 else f"{rule.kinds[0]}s"


def _section(rule: Rule) -> str:
    return f"#### {rule.name}\n\n{rule.summary}\n\n*To mend it:* {rule.mend}\n"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    written = page.read_text(encoding="utf-8").partition(MARK)[0]
    page.write_text(written + MARK + "\n" + generated(), encoding="utf-8")
