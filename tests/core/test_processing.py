"""preprocess and postprocess."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn

from fusionkit.core.processing import NAMES, Processing
from fusionkit.errors import ConfigError, FusionError
from fusionkit.fusions.concatenation import Concatenation
from fusionkit.fusions.summation import Summation


def views(*dims: int) -> list[torch.Tensor]:
    return [torch.randn(5, width) for width in dims]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_keeps_the_shape(name: str) -> None:
    x = views(3, 1, 4)
    op = Concatenation(dims=[3, 1, 4], preprocess=name, postprocess={"name": name})
    assert op(x).shape == (5, 8)
    assert op.calculate_l() == 0


def test_one_instance_per_view() -> None:
    op = Concatenation(dims=[3, 4], preprocess={"name": "layer_norm", "eps": 0.1})
    x = views(3, 4)
    norms = [nn.functional.layer_norm(view, view.shape[-1:], eps=0.1) for view in x]
    torch.testing.assert_close(op(x), torch.cat(norms, -1))
    assert op.preprocess is not None
    assert [m.normalized_shape for m in op.preprocess.steps if isinstance(m, nn.LayerNorm)] == [(3,), (4,)]


def test_a_given_module_is_shared_and_a_list_is_a_chain() -> None:
    shared = nn.Linear(4, 4)
    op = Summation(dims=[4, 4], preprocess=[shared, torch.tanh], postprocess=[lambda t: t * 2])
    x = views(4, 4)
    torch.testing.assert_close(op(x), 2 * (shared(x[0]).tanh() + shared(x[1]).tanh()))
    assert len(list(op.parameters())) == 2
    assert op.flat_w().shape == (0,)


def test_allowed_target_with_the_width() -> None:
    op = Concatenation(dims=[3, 4], preprocess={"_target_": "torch.nn.LayerNorm", "normalized_shape": "{view}"})
    assert op(views(3, 4)).shape == (5, 7)


def test_factory_arguments_reach_the_modules() -> None:
    op = Summation(dims=[4, 4], preprocess="linear", device="meta", dtype="float64")
    assert {(p.device.type, p.dtype) for p in op.parameters()} == {("meta", torch.float64)}


def test_pickle_keeps_sharing() -> None:
    op = Summation(dims=[4, 4], preprocess=nn.Linear(4, 4))
    x = views(4, 4)
    assert torch.equal(pickle.loads(pickle.dumps(op))(x), op(x))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            "layernorm",
            ConfigError,
            r"preprocess\.name should be one of .*; found 'layernorm'\. Did you mean 'layer_norm'",
        ),
        ({"name": "layer_norm", "epsi": 1}, ConfigError, r"preprocess\.epsi should be an option of LayerNorm"),
        ({}, ConfigError, r"preprocess\.name should be one of .*; found None"),
        ({"_target_": "os.system", "command": "true"}, ConfigError, r"preprocess\._target_"),
        ([None, "relu", {"_target_": "builtins.open"}], ConfigError, r"preprocess\[1\]\._target_"),
        (3, FusionError, r"preprocess should be a module, a callable, a config or a list of them; found 3"),
        (nn.LayerNorm, FusionError, r"preprocess should be a module"),
        (lambda t: t[:1], FusionError, r"^preprocess should keep the shape of view 0, \(5, 4\); found \(1, 4\)\.$"),
        (lambda t: t.tolist(), FusionError, r"^preprocess should keep the shape of view 0, \(5, 4\); found list\.$"),
    ],
)
def test_bad_input(spec: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Summation(dims=[4, 4], preprocess=spec)(views(4, 4))


def test_postprocess_message() -> None:
    with pytest.raises(FusionError, match=r"^postprocess should .*found \(5, 2\)\.$"):
        Summation(dims=[4, 4], postprocess=lambda t: t[:, :2])(views(4, 4))


def test_nothing() -> None:
    assert Processing.of("preprocess", None, (3,), {}) is None
    assert Processing.of("preprocess", [None], (3,), {}) is None


def test_an_error_in_a_step_says_where() -> None:
    norms = [nn.LayerNorm(7), nn.LayerNorm(5)]
    made = Processing.of("preprocess", norms, [7, 5], {})
    assert made is not None
    with pytest.raises(RuntimeError, match="normalized_shape") as caught:
        made([torch.randn(4, 7), torch.randn(4, 5)])
    assert caught.value.__notes__ == [
        "In preprocess, step 1 of 2, LayerNorm, for view 0, (4, 7) of torch.float32 on cpu; steps are applied in turn."
    ]
    after = Processing.of("postprocess", lambda t: t @ t, [7], {})
    assert after is not None
    with pytest.raises(RuntimeError) as caught:
        after([torch.randn(4, 7)])
    assert caught.value.__notes__ == [
        "In postprocess, step 0 of 1, <lambda>, for the result, (4, 7) of torch.float32 on cpu; steps are applied in "
        "turn."
    ]
