"""Writes docs/mutants.md, which checks caught which: ``python -m tests.contract.mutant_table``."""

from __future__ import annotations

import inspect
from pathlib import Path

from fusionkit.contract.checks import CHECKS
from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.rules import rule_of
from fusionkit.contract.runner import Plan, run
from tests.contract import test_registration_checks
from tests.contract.mutants import MUTANTS
from tests.contract.mutants.resources import RUNTIME
from tests.contract.mutants.table import TESTED

#: In the order of the kit's checks.
PAIRS = [(name, cls) for name in (rule_of(check).name for check in CHECKS) for cls in MUTANTS.get(name, [])]
PAGE = Path(__file__).parents[2] / "docs" / "mutants.md"
#: These run on their own mutants only: tracing takes seconds, and a mutant's docstring says what is wrong, no formula.
OWN_ONLY = ("compile_fullgraph", "export", "documented")

HEAD = """\
# Mutants: what each check catches

Every check of the kit has operators that are wrong in its way, and that it catches; the tests run each pair.  This
table shows which other checks of tiers 1 and 2 object to the first case; {own_only} ran on
their own mutants only.  It is made by `python -m tests.contract.mutant_table`.

| check | mutant | what is wrong with it | also caught by |
|---|---|---|---|
"""
TAIL = """
Entries of the registry and configs that are wrong, in `tests/contract/test_registration_checks.py`:

| check | tests |
|---|---|
"""


def page() -> str:
    """Run the kit on every mutant, and return the page."""
    rows = []
    for check, cls in PAIRS:
        RUNTIME["scale"] = 2.0 if check == "spawn_safety" else 1.0
        (subject,) = subjects_of(cls)
        first = Plan.of(tier=2, skip=[*OWN_ONLY, check], case=str(subject.cases()[0]))
        others = sorted({result.check for result in run([subject], first).bad})
        assert run([subject], Plan.of(select=[check])).bad, (check, cls)
        rows.append(f"| {check} | {cls.__name__} | {summary(cls)} | {', '.join(others) or '-'} |\n")
        print(rows[-1], end="", flush=True)
    assert test_registration_checks.REGISTRATION
    tests = "".join(f"| {check} | {', '.join(names)} |\n" for check, names in TESTED.items())
    return HEAD.format(own_only=", ".join(OWN_ONLY)) + "".join(rows) + TAIL + tests


def summary(cls: type) -> str:
    """Return what is wrong with a mutant."""
    return (inspect.cleandoc(cls.__dict__.get("__doc__") or "Has no docstring.")).partition("\n")[0].replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
