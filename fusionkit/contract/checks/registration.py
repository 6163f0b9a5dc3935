"""The entry in the registry, and what importing the target does."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from functools import partial
from typing import Any

from fusionkit._util.distribution import version
from fusionkit.contract import probes
from fusionkit.contract.checks._common import expect_resolves, skip_if
from fusionkit.contract.rules import expect, outcome, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.contract.workers import fresh
from fusionkit.registry.discovery import Candidate, incompatible
from fusionkit.registry.loading import NAME

#: Seconds of processor time that importing an operator may take beyond torch and fusionkit themselves.
IMPORT_BUDGET = 2.0


@rule(scope="none", needs=("interpreter",))
def check_entry_point_resolves(subject: Subject) -> None:
    """The target imports alone in a fresh interpreter, and is a Fusion (a Fabrication).

    Import what the module needs in the module itself; do not rely on another module having been imported before.
    """
    target = subject.record.target
    imported, error = _import_alone(subject)
    expect(error is None, f"{target} should import alone in a fresh interpreter", str(error))
    base = f"fusionkit.{subject.kind.capitalize()}"
    expect(imported.kind == subject.kind, f"{target} should be a subclass of {base}", imported.found)


@rule(tier=2, scope="none", needs=("interpreter",))
def check_import_side_effects(subject: Subject) -> None:
    """Importing the target changes no global state of torch, Python or the environment, and opens no socket.

    Move what the module does at import into the functions that need it.
    """
    changed = _import_of(subject).changed
    expect(not changed, "importing the target should change nothing", ", ".join(changed))


@rule(tier=2, scope="none", needs=("interpreter",))
def check_import_budget(subject: Subject) -> str:
    """Listing the registry does not import the target, and importing it takes at most 2 s of processor time.

    Register the target as a string, and import heavy packages in the functions that use them.
    """
    seconds, record = _import_of(subject).seconds, subject.record
    should = f"importing the target should take at most {IMPORT_BUDGET:g} s of processor time"
    expect(seconds <= IMPORT_BUDGET, should, f"{seconds:.1f} s")
    should = "the target should be registered as 'package.module:Class'"
    expect(not isinstance(record.spec.target, type), should, "the class, which listing imports")
    module = record.target.partition(":")[0]
    listed, error = outcome(partial(fresh, probes.imported_by_listing, [module]))
    expect(error is None, "the registry should be listed in a fresh interpreter", str(error))
    expect(not listed, f"listing the registry should not import {module}", "that it does")
    return f"imported in {seconds:.2f} s"


def _import_alone(subject: Subject) -> Any:
    """Import the target in a fresh interpreter, once per subject; return the ``Imported``, or None, and the error."""
    record, notes = subject.record, subject.source.notes
    skip_if(record.local, "needs an installed plugin, and the subject was registered at run time")
    if "imported" not in notes:
        notes["imported"] = outcome(partial(fresh, probes.imported, record.target))
    return notes["imported"]


def _import_of(subject: Subject) -> probes.Imported:
    """Return what importing the target did; skips the check where that fails."""
    imported, error = _import_alone(subject)
    skip_if(error, "the target cannot be imported alone; entry_point_resolves says why")
    return imported  # type: ignore[no-any-return]


@rule(scope="none")
def check_name_valid(subject: Subject) -> None:
    """The name matches `[a-z][a-z0-9_]*`, and the short name, or else the qualified one, means this operator.

    Choose another name; `fusionkit plugins` names the plugin with which it collides.
    """
    record = subject.record
    for name in (record.name, *record.aliases):
        expect(NAME.fullmatch(name), f"a name should match {NAME.pattern}", name)
    for name in (record.key, record.qualified):
        expect_resolves(subject, name, name)


@rule(scope="none")
def check_api_version(subject: Subject) -> None:
    """The requirement of its distribution on fusionkit, if there is one, admits the running version.

    Correct the requirement in the distribution's metadata, or install a fusionkit that it admits.
    """
    record = subject.record
    try:
        requires = tuple(importlib.metadata.distribution(record.distribution).requires or ())
    except importlib.metadata.PackageNotFoundError:
        skip(f"needs an installed distribution, and {record.distribution} is none")
    candidate = Candidate(record.plugin, "", record.distribution, record.version, lambda: None, requires)
    reason = incompatible(candidate, version())
    expect(reason is None, f"{record.distribution} should admit fusionkit {version()}", str(reason))


@rule(tier=2, scope="examples")
def check_documented(subject: Subject) -> None:
    """The class has a docstring with a summary line and a formula, and `repr` shows every argument.

    Begin the docstring with the formula in backticks; leave `__repr__` and `extra_repr` to the base class.
    """
    text = inspect.cleandoc(subject.cls.__dict__.get("__doc__") or "")
    expect(text.partition("\n")[0].strip(), "the docstring should begin with a summary line", repr(text[:40]))
    formula = re.search(r"`[^`]+`|\$|=", text)
    expect(formula, "the docstring should contain a formula in `backticks`, with $ or =", "none")
    shown = repr(subject.made())
    for option in subject.case.options:
        expect(re.search(rf"\b{option}=", shown), f"repr should show the argument {option}", repr(shown))
