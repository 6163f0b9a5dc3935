"""Writes ``docs/contract.md`` from the docstrings: ``python -m fusionkit.contract.docs docs/contract.md``."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields

from fusionkit.contract import checks
from fusionkit.contract.report import write
from fusionkit.contract.rules import Rule, rule_of
from fusionkit.fusion import Traits

__all__ = ["page"]

INTRODUCTION = """\
# The contract

What `fusionkit check` verifies of every fusion and fabrication, and how to mend what it finds.  This page is made from
the docstrings of the checks: `python -m fusionkit.contract.docs docs/contract.md`.

## Running it

```
fusionkit check                                  # everything that is registered
fusionkit check gram --tier 1                    # one operator, the quick checks
fusionkit check my_package.gram:Gram             # a class that is not registered
fusionkit check gram --select 'config_*' -x      # some checks, until the first failure
fusionkit check --json report.json --junit report.xml
fusionkit check --list                           # the checks
```

```python
import fusionkit

report = fusionkit.check("gram")                 # a name, "module:Class", a class, an instance, or a list of these
assert report.ok, report
```

In the tests of a package:

```python
from fusionkit.testing import parametrize_with_checks

@parametrize_with_checks(["gram"], expected_failures={"export": "data-dependent shape"})
def test_contract(check):
    check()
```

An expected failure needs a reason, and fails when it passes.  The fixture `isolated_registry` gives a test a registry
with the core and the plugin modules that the test adds, and nothing else.

[Which checks catch which mutant](mutants.md) shows what the kit finds in operators that are deliberately wrong.

The command prints the broken rules with the likely cause first, and lists them all at the end; `-v` prints every
finding.  Where the system can fork, it survives an operator that ends the process, crashes it or cannot be interrupted:
that check is an error, and the run goes on.  A check that does not end within the time limit is not tried on further
cases, and after three such the other checks of that subject are not tried.  From Python and in pytest the checks run in
the calling process.

`fusionkit.create(..., check=True)`, or `FUSIONKIT_CHECK=1`, verifies n, l, shape, dtype and device at the first forward
in the program itself.

## Cases

An operator is checked on every set of keywords that its `examples()` yields, and, as far as its constructor admits
them (a `ValueError` refuses), on generated ones: one view, prime widths, widths of 1, many views.  An operator with the
option `parameter_fabrication` also undergoes the checks of tier 1 with every registered fabrication, unless `--tier 1`
asks for the quick ones.  A fabrication is checked inside `parameterized_concatenation`, on sizes that are composite,
prime, and cropped, with one to three views, n = 1, D = 1, n = D and n > D.  Parameters are drawn at random, since
initial ones may be zero.

## Tiers and statuses

Tier 1 always runs, tier 2 by default, tier 3 on request (`--tier 3`, or by name).  A result is *passed*; *failed*: the
rule is broken; *error*: the check came to no verdict, within 60 s or at all; *skipped*: it does not apply, or needs
something that the machine lacks; *xfailed* or *xpassed*: it was expected to fail, and did or did not.  The exit status
is 1 if any result is failed, error or xpassed.  The JSON report follows `fusionkit/contract/report.schema.json`.

All that this repository registers, the core and the two plugins of operators, 51 subjects and 29 874 results, took
155 s on two cores on 26 November 2026, with at most 1.2 GB in all processes; tier 1 of one operator at most 2.7 s.
With 20 other seeds, ten of them before the newest checks came, none of the results was bad.

A plugin adds checks of its own with the hook `fusionkit_checks`: functions `check_<name>(subject)`, where `subject` is
a `fusionkit.contract.subject.Subject`.
"""

TRAITS = """\
## Traits

`traits = fusionkit.Traits(...)` on the class.  What is declared is verified; `permutation_invariant`, `stochastic`,
`train_eval_differ`, `aliases_input` and, with parameters, `constant_init` also have to be declared when they hold on
every example.  Where n is free, `free_n` has to be declared, since an `n` that does not follow is else to be refused.
`once_differentiable_only` has to be true of an example.  `memory_factor` is an upper bound: a finite number.

| trait | promise |
|---|---|
"""


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, TRAITS + _traits(), "## The checks\n\n" + _overview()]
    for family in checks.FAMILIES:
        rules = [rule_of(check) for name, check in vars(family).items() if name.startswith("check_")]
        title = (inspect.getdoc(family) or "").partition("\n")[0].rstrip(".")
        parts.append(f"### {title}\n\n" + "\n".join(_section(rule) for rule in rules))
    return "\n".join(parts)


def _traits() -> str:
    text = inspect.getdoc(Traits) or ""
    promises = dict(re.findall(r"^    (\w+): (.+?)\.?$", text, re.MULTILINE))
    return "".join(f"| `{field.name}` | {promises[field.name].replace('``', '`')} |\n" for field in fields(Traits))


def _overview() -> str:
    rows = "".join(
        f"| [{rule.name}](#{rule.name}) | {rule.tier} | {_of(rule)} | {', '.join(rule.needs)} | {rule.summary} |\n"
        for rule in map(rule_of, checks.CHECKS)
    )
    return "| check | tier | of | needs | rule |\n|---|---|---|---|---|\n" + rows


def _of(rule: Rule) -> str:
    return "both" if len(rule.kinds) == 2 else f"{rule.kinds[0]}s"


def _section(rule: Rule) -> str:
    return f"#### {rule.name}\n\n{rule.summary}\n\n*To mend it:* {rule.mend}\n"


if __name__ == "__main__":
    write(sys.argv[1], page()) if len(sys.argv) > 1 else print(page(), end="")
