from __future__ import annotations

from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.errors import ConfigError, FusionError
from tests.fusions import elementwise_properties as properties


def spread(t: torch.Tensor) -> torch.Tensor:
    return t.amax(-1) - t.amin(-1)


def test_values() -> None:
    properties.values("metric", lambda v: max(v), metric="max")
    properties.values("metric", lambda v: max(v) - min(v), metric=spread)
    properties.values("metric", lambda v: sorted(v)[(len(v) - 1) // 2], metric=torch.median)


def test_derivatives() -> None:
    properties.derivatives("metric", metric="logsumexp")


def test_a_callable_has_no_config() -> None:
    assert fusionkit.create("metric", dims=[3, 3], metric="var").to_config()["metric"] == "var"
    with pytest.raises(ConfigError, match="the argument metric should be a name"):
        fusionkit.create("metric", dims=[3, 3], metric=spread).to_config()


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("maxx", r"^metric should be one of sum, .*; found 'maxx'\. Did you mean 'max'\?$"),
        (3, r"^metric should be one of sum, .*, or a callable; found 3\.$"),
        (torch.nn.Linear(3, 1), r"^metric should have no parameters"),
        (lambda t: t, r"^metric should reduce \(4, 2\) to \(4,\); found \(4, 2\)\.$"),
        (lambda t: None, r"^metric should reduce \(4, 2\) to \(4,\); found NoneType\.$"),
        (lambda t: t.argmax(-1), r"^metric should return a floating-point tensor; found torch\.int64\.$"),
    ],
)
def test_bad_metrics(metric: Any, message: str) -> None:
    with pytest.raises(FusionError, match=message):
        fusionkit.create("metric", dims=[2, 2], metric=metric)([torch.randn(2, 2), torch.randn(2, 2)])


def test_as_many_entries_as_views() -> None:
    """A metric over the wrong dimension would return as many."""
    x = [torch.randn(2) for _ in range(2)]
    torch.testing.assert_close(fusionkit.create("metric", dims=[2, 2], metric="max")(x), torch.maximum(*x))
    wrong = fusionkit.create("metric", dims=[2, 2], metric=lambda t: t.sum(0))
    with pytest.raises(FusionError, match=r"^metric should .*found \(2,\)\.$"):
        wrong(x)
