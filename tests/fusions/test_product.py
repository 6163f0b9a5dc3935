from __future__ import annotations

import math

import torch

import fusionkit
from tests.fusions import elementwise_properties as properties


def test_values() -> None:
    properties.values("product", lambda v: math.prod(v))


def test_derivatives() -> None:
    properties.derivatives("product")


def test_blocks() -> None:
    properties.large("product")


def test_nan_stays_where_it_is() -> None:
    properties.nan("product")


def test_compiles_whole() -> None:
    properties.compiles("product")


def test_gradients_where_views_are_zero() -> None:
    x = [torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 5.0]])]
    x = [view.requires_grad_() for view in x]
    fusionkit.create("product", dims=[2] * 3)(x).sum().backward()
    assert [view.grad.tolist() for view in x if view.grad is not None] == [[[6.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]]
