"""The list of checks: none gets lost, and no plugin replaces one."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest

import fusionkit
from fusionkit import registry
from fusionkit.contract.checks import CHECKS, FAMILIES, checks_of
from fusionkit.contract.rules import rule_of
from fusionkit.contract.runner import all_checks

#: Change it with the checks.
COUNT = 100


def plugin_with(*checks: Callable[..., object]) -> types.ModuleType:
    plugin = types.ModuleType("checking_plugin")
    hook = fusionkit.hookimpl(lambda: list(checks), specname="fusionkit_checks")
    plugin.fusionkit_checks = hook  # type: ignore[attr-defined]
    return plugin


def test_no_check_gets_lost() -> None:
    assert len(CHECKS) == COUNT
    assert len({rule_of(check).name for check in CHECKS}) == COUNT


def test_every_check_is_a_function_of_its_family() -> None:
    assert sum(len(checks_of(family)) for family in FAMILIES) == COUNT
    for family in FAMILIES:
        for check in checks_of(family):
            name = f"check_{rule_of(check).name}"
            assert vars(family)[name] is check
            assert "rule" in vars(check), f"{name} should state its tier with @rule"


def test_a_check_of_a_plugin_joins_those_of_the_kit() -> None:
    def check_small(subject: object) -> None:
        """The output is narrow."""

    with registry.isolated(plugin_with(check_small)):
        assert all_checks() == [*CHECKS, check_small]


def test_a_check_of_a_plugin_does_not_replace_one_of_the_kit() -> None:
    def check_gradcheck(subject: object) -> None:
        """Would be easier to pass."""

    message = "a plugin's check should have a name of its own; found gradcheck in .*test_checks, which is left out"
    with registry.isolated(plugin_with(check_gradcheck)), pytest.warns(RuntimeWarning, match=message):
        assert all_checks() == list(CHECKS)


def test_two_plugins_with_a_check_of_one_name() -> None:
    def check_small(subject: object) -> None:
        """The output is narrow."""

    first = check_small

    def check_small(subject: object) -> None:  # type: ignore[no-redef]
        """The output is narrower."""

    with registry.isolated(plugin_with(first, check_small)), pytest.warns(RuntimeWarning, match="found small in"):
        assert all_checks() == [*CHECKS, first]
