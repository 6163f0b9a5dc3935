from __future__ import annotations

import pytest
import torch

from fusionkit.errors import OptionError
from fusionkit.fabrications.zero import Zero


def test_against_the_definition() -> None:
    x = [torch.randn(3, 2, requires_grad=True), torch.randn(3, 5, requires_grad=True)]
    out = Zero().project(x, torch.empty(0), 4)
    assert out.tolist() == [[0.0] * 4] * 3
    for grad, view in zip(torch.autograd.grad(out.sum(), x), x, strict=True):
        assert torch.equal(grad, torch.zeros_like(view))
    assert Zero().materialize(torch.empty(0), 2, 3).tolist() == [[0.0] * 3] * 2
    assert Zero().shapes(2, 3) == {}


def test_has_no_options() -> None:
    with pytest.raises(OptionError, match="found 'value'"):
        Zero(value=1.0)  # type: ignore[call-arg]
