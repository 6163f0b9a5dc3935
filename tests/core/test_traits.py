"""The traits that an operator may declare."""

from __future__ import annotations

from typing import Any

import pytest

from fusionkit import FusionError, Traits


def test_another_value_of_missing_is_refused() -> None:
    wrong: Any = "skp"
    with pytest.raises(FusionError, match=r"^missing should be one of skip, neutral, refuse; found 'skp'.*'skip'"):
        Traits(missing=wrong)


def test_only_what_differs_from_the_default_is_declared() -> None:
    assert Traits(linear=True, missing="skip").declared() == {"linear": True, "missing": "skip"}
