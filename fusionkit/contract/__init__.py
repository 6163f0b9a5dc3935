"""The conformance kit: proves that a fusion operator, or a fabrication, keeps its contract.

A check is a plain function ``check_<name>(subject)`` with one rule; see ``docs/contract.md`` for the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionkit.contract.report import Report

__all__ = ["check"]


def check(
    obj: Any,
    *,
    kind: str | None = None,
    tier: int | None = None,
    select: Iterable[str] = (),
    skip: Iterable[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
    time_limit: float = 60.0,
) -> Report:
    """Check one operator or fabrication, or several.

    Args:
        obj: a registered name, ``"module:Class"``, a class, an instance, or a list of these.
        kind: ``"fusion"`` or ``"fabrication"``, for a name that both have; None checks both.
        tier: run the checks up to this tier; None means 2, or whatever ``select`` names.
        select: names of checks, also as patterns (``"config_*"``); empty means all.
        skip: names of checks to leave out.
        expected_failures: check name -> why it fails; these become xfailed, or else xpassed, which fails.
        seed: of the random views and parameters.
        time_limit: seconds that one check may take on one case.

    Raises:
        RegistryError: ``obj`` names nothing.
        ConfigError: ``select``, ``skip`` or ``expected_failures`` name a check that does not exist.
    """
    from fusionkit.contract.runner import Plan, run
    from fusionkit.contract.subject import subjects_of

    plan = Plan.of(
        tier=tier, select=select, skip=skip, expected_failures=expected_failures, seed=seed, time_limit=time_limit
    )
    return run(subjects_of(obj, kind), plan)
