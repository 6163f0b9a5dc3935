from __future__ import annotations

from tests.fusions import elementwise_properties as properties


def test_values() -> None:
    properties.values("minimum", lambda v: min(v))


def test_derivatives() -> None:
    properties.derivatives("minimum")


def test_blocks() -> None:
    properties.large("minimum")


def test_nan_stays_where_it_is() -> None:
    properties.nan("minimum")


def test_compiles_whole() -> None:
    properties.compiles("minimum")
