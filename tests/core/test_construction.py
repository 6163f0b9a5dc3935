"""Construction: unknown options, the captured arguments, the visible signature."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

import fusionkit
from fusionkit.core.construction import Unwritable, build, plain, writable
from fusionkit.errors import ConfigError, OptionError
from fusionkit.fabrications.lowrank import LowRank
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.fusions.summation import Summation


def test_unknown_option_names_the_nearest() -> None:
    message = (
        r"^LowRank should get options among r; found 'rank'\. Did you mean 'r'\?$",
        r"^ParameterizedConcatenation should get options among .*; found 'fabrication'\. "
        r"Did you mean 'parameter_fabrication'\?$",
    )
    with pytest.raises(OptionError, match=message[0]):
        LowRank(rank=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=message[1]):
        ParameterizedConcatenation(dims=[2, 2], fabrication="lowrank")  # type: ignore[call-arg]


def test_an_option_where_there_are_none() -> None:
    with pytest.raises(OptionError, match=r"^toeplitz should get no options; found 'r'\.$"):
        fusionkit.create_fabrication("toeplitz", r=2)


def test_unknown_option_through_the_registry_names_the_key() -> None:
    with pytest.raises(OptionError, match=r"^total should get options among"):
        build(Summation, "total", {"dim": [2, 2]})


def test_signature_is_that_of_init() -> None:
    assert list(inspect.signature(LowRank).parameters) == ["r"]
    assert list(inspect.signature(Summation).parameters)[:4] == ["n", "dims", "name", "require_parameters"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ((1, 2), [1, 2]),
        (torch.Size([3]), [3]),
        (torch.float16, "float16"),
        (torch.device("cpu"), "cpu"),
        ({"name": "lowrank", "r": np.int64(8)}, {"name": "lowrank", "r": 8}),
        (np.float32(0.5), 0.5),
        (torch.tensor([0.5, 1.0]), [0.5, 1.0]),
        (LowRank(r=3), {"name": "lowrank", "r": 3}),
    ],
)
def test_plain(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


def test_arguments_are_taken_before_the_caller_changes_them() -> None:
    dims = [3, 4]
    op = ParameterizedConcatenation(dims=dims, n=2)
    dims.append(5)
    assert op.to_config() == {"name": "parameterized_concatenation", "dims": [3, 4], "n": 2}


def test_writable_names_the_argument() -> None:
    assert isinstance(plain(torch.tanh), Unwritable)
    with pytest.raises(ConfigError, match=r"^op: the argument a\[1\]\.b should be a name, .* found an object of type"):
        writable("op", {"a": plain([1, {"b": object()}])})
