"""Every check of the conformance kit, one test each."""

from __future__ import annotations

from collections.abc import Callable

from fusionkit.testing import parametrize_with_checks

from fusionkit_attention.plugin import OPERATORS


@parametrize_with_checks(list(OPERATORS))
def test_contract(check: Callable[[], None]) -> None:
    check()
