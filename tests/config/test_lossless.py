"""``to_config`` -> JSON -> ``create`` is an equal operator: every operator and fabrication, frozen parts included."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fusionkit
from fusionkit import registry
from fusionkit.errors import FusionError


def names(kind: registry.Operator) -> list[str]:
    return [record.key for record in registry.records(kind) if record.distribution == "tensor-fusionkit"]


def check_lossless(operator: fusionkit.Fusion) -> None:
    config = operator.to_config()
    again = fusionkit.create(**json.loads(json.dumps(config)))
    assert again.to_config() == config
    assert type(again) is type(operator)
    assert (again.dims, again.n, again.calculate_l()) == (operator.dims, operator.n, operator.calculate_l())
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (operator, again)]
    assert shapes[0] == shapes[1]
    # What is frozen comes from the seed in the config, not from the file of the tensors.
    frozen = dict(operator.named_buffers())
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, frozen[name]), name
    with torch.no_grad():
        for (_, ours), (_, theirs) in zip(operator.named_parameters(), again.named_parameters(), strict=True):
            theirs.copy_(ours)
    views = [torch.randn(3, width) for width in operator.dims or ()]
    torch.testing.assert_close(again.eval()(views), operator.eval()(views), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", names("fusion"))
def test_every_example_of_every_fusion(name: str) -> None:
    cls: Any = registry.load("fusion", name)
    processed = {"preprocess": ["gelu", {"name": "layer_norm"}], "postprocess": {"name": "leaky_relu"}}
    for options in cls.examples():
        check_lossless(fusionkit.create(name, **options))
        check_lossless(fusionkit.create(name, **{**options, **processed}))


@pytest.mark.parametrize("name", names("fabrication"))
@settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.filter_too_much]
)
@given(
    n=st.integers(1, 12),
    dims=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_every_fabrication_at_any_size_and_seed(
    name: str, n: int, dims: list[int], seed: int, data: st.DataObject
) -> None:
    cls: Any = registry.load("fabrication", name)
    options = dict(data.draw(st.sampled_from(list(cls.examples()))))
    if "seed" in cls.__init__.__annotations__:
        options["seed"] = seed
    node = {"name": name, **options}
    try:
        operator = fusionkit.create("parameterized_concatenation", dims=dims, n=n, parameter_fabrication=node)
    except FusionError:
        assume(False)  # Explicit sizes of an example that this matrix has no room for.
    check_lossless(operator)
    assert operator.to_config()["parameter_fabrication"].get("seed") == options.get("seed")
