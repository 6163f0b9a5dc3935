from __future__ import annotations

import torch

import fusionkit
from tests.fusions import elementwise_properties as properties


def test_values() -> None:
    properties.values("median", lambda v: sorted(v)[(len(v) - 1) // 2])


def test_derivatives() -> None:
    properties.derivatives("median")


def test_blocks() -> None:
    properties.large("median")


def test_nan_stays_where_it_is() -> None:
    properties.nan("median")


def test_compiles_whole() -> None:
    properties.compiles("median")


def test_many_views_need_no_network() -> None:
    x = [torch.randn(4, 3) for _ in range(50)]
    found = fusionkit.create("median", dims=[3] * 50)(x)
    assert torch.equal(found, torch.stack(x).median(0).values)


def test_ties_share_the_gradient() -> None:
    x = [torch.zeros(1, 1, requires_grad=True) for _ in range(4)]
    fusionkit.create("median", dims=[1] * 4)(x).sum().backward()
    assert [view.grad.item() for view in x if view.grad is not None] == [0.25] * 4
