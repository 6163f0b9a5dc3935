"""Every check of the conformance kit, and the one of this package, one test each."""

from __future__ import annotations

from collections.abc import Callable

from fusionkit.testing import parametrize_with_checks


@parametrize_with_checks(["soft_maximum", "folded_diagonal"])
def test_contract(check: Callable[[], None]) -> None:
    check()
