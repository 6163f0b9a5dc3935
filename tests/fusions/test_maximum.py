from __future__ import annotations

from tests.fusions import elementwise_properties as properties


def test_values() -> None:
    properties.values("maximum", lambda v: max(v))


def test_derivatives() -> None:
    properties.derivatives("maximum")


def test_blocks() -> None:
    properties.large("maximum")


def test_nan_stays_where_it_is() -> None:
    properties.nan("maximum")


def test_compiles_whole() -> None:
    properties.compiles("maximum")
