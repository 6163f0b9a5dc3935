from __future__ import annotations

from pathlib import Path

import pytest

from fusionkit.contract.checks import CHECKS
from fusionkit.contract.rules import Rule, rule_of
from tests.contract.contract_page import MARK, generated

DOCS = Path(__file__).parents[2] / "docs"
RULES = [rule_of(check) for check in CHECKS]


def test_page_is_current() -> None:
    page = (DOCS / "contract.md").read_text(encoding="utf-8")
    assert page.partition(MARK)[2] == f"\n{generated()}", "python -m tests.contract.contract_page docs/contract.md"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_check_states_its_rule_and_how_to_mend_it(rule: Rule) -> None:
    assert rule.summary.endswith(".")
    assert rule.mend.endswith(".")
    assert rule.tier in (1, 2, 3)
