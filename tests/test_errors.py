"""The exceptions: their families, and that they cross process borders."""

from __future__ import annotations

import pickle

import pytest

from fusionkit.errors import ConfigError, DimsError, FusionError, OptionError, RegistryError, nearest


@pytest.mark.parametrize(
    ("error", "families"),
    [
        (FusionError, (ValueError,)),
        (DimsError, (FusionError, ValueError, AssertionError)),
        (RegistryError, (LookupError,)),
        (ConfigError, (ValueError,)),
        (OptionError, (ConfigError, TypeError)),
    ],
)
def test_families_and_pickle(error: type[Exception], families: tuple[type[Exception], ...]) -> None:
    assert all(issubclass(error, family) for family in families)
    again = pickle.loads(pickle.dumps(error("n should be 4; found 5.")))
    assert type(again) is error
    assert str(again) == "n should be 4; found 5."


def test_nearest() -> None:
    assert nearest("sumation", ["summation", "average"]) == " Did you mean 'summation'?"
    assert nearest("rank", ["R", "dims", "n"]) == " Did you mean 'R'?"
    assert nearest("nonsense", ["n", "dims"]) == ""
    assert nearest("zzz", ["summation", "average"]) == ""
