"""Every check of the conformance kit, one test each."""

from __future__ import annotations

from collections.abc import Callable

from fusionkit.testing import parametrize_with_checks
from oracles import ORACLES


@parametrize_with_checks(list(ORACLES))
def test_contract(check: Callable[[], None]) -> None:
    check()
