from __future__ import annotations

from tests.fusions import elementwise_properties as properties


def test_values() -> None:
    properties.values("l1_norm", lambda v: sum(map(abs, v)))


def test_derivatives() -> None:
    properties.derivatives("l1_norm")


def test_blocks() -> None:
    properties.large("l1_norm")


def test_nan_stays_where_it_is() -> None:
    properties.nan("l1_norm")


def test_compiles_whole() -> None:
    properties.compiles("l1_norm")
