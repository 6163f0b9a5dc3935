from __future__ import annotations

import pytest

from fusionkit.experiment.numerals import numeral


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.975, "0.9750"),
        ("r2", -12.25, "-12.2500"),
        ("log_loss", 0.00012, "0.0001"),
        ("rmse", 1.23456, "1.235"),
        ("rmse", 0.0, "0.0000"),
        ("rmse", 123456.7, "123457"),
        ("mae_weight", 0.0123456, "0.01235"),
        ("mae", 1e-30, "0.000000000000"),
    ],
)
def test_four_decimals_or_four_digits_of_what_has_a_unit(metric: str, value: float, text: str) -> None:
    assert numeral(metric, value) == text
