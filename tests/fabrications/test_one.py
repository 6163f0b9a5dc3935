from __future__ import annotations

import pytest
import torch

from fusionkit.errors import OptionError
from fusionkit.fabrications.one import One


def test_against_the_definition() -> None:
    x = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0], [20.0]])]
    assert One().project(x, torch.empty(0), 3).tolist() == [[13.0] * 3, [27.0] * 3]
    assert One().materialize(torch.empty(0), 2, 3).tolist() == [[1.0] * 3] * 2
    assert One().shapes(2, 3) == {}


def test_has_no_options() -> None:
    with pytest.raises(OptionError, match="found 'value'"):
        One(value=2.0)  # type: ignore[call-arg]
