from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import fusionkit
from fusionkit.config.options import ModelOptions
from fusionkit.errors import DimsError, FusionError, RegistryError
from fusionkit.experiment.model import FusionModel, Network, Scaler, encoder
from tests.messages import like


def small(kind: str = "none", **options: Any) -> FusionModel:
    """Return a model of two views of widths 4 and 3, three classes."""
    seen = [4, 3] if kind == "none" else [6, 6]
    fusion = fusionkit.create("parameterized_concatenation", dims=seen, n=5, **options)
    return FusionModel(
        Scaler(["a", "b"], [4, 3]),
        Network(fusion, [4, 3], 3, ModelOptions.model_validate({"encoder": kind}), 0.3),
        ["x", "y", "z"],
    )


# -- scaler ------------------------------------------------------------------------------------------------------------


def test_scaler_standardizes_each_view(arrays: dict[str, Any]) -> None:
    scaler = Scaler(["a", "b"], [4, 3])
    scaler.fit([arrays["a"], arrays["b"]])
    for view, given in zip(scaler([arrays["a"], arrays["b"]]), (arrays["a"], arrays["b"]), strict=True):
        expected = (given - given.mean(0)) / given.std(0)
        assert view.dtype == torch.float32
        np.testing.assert_allclose(view.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_scaler_keeps_constant_columns_finite() -> None:
    scaler = Scaler(["a"], [2])
    scaler.fit([np.array([[5.0, 1.0], [5.0, 3.0]])])
    assert scaler([torch.tensor([[5.0, 3.0], [6.0, 1.0]])])[0].tolist() == [[0.0, 1.0], [1.0, -1.0]]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_scaler_has_the_numbers_of_scikit_learn(order: str) -> None:
    random = np.random.default_rng(0)
    view = random.standard_normal((50, 4)) * [1, 1e-9, 1e6, 0] + [0, 1e8, 1e-3, 0.3]
    view = np.asarray(view, order=order)  # type: ignore[call-overload]
    scaler, wanted = Scaler(["a"], [4]), StandardScaler().fit(view)
    scaler.fit([view])
    np.testing.assert_array_equal(scaler.get_buffer("mean_0").numpy(), wanted.mean_)
    np.testing.assert_array_equal(scaler.get_buffer("scale_0").numpy(), wanted.scale_)


def test_scaler_does_not_cancel_large_offsets() -> None:
    raw = 1_700_000_000 + np.arange(8.0)[:, None]
    scaler = Scaler(["time"], [1])
    scaler.fit([raw])
    expected = (np.arange(8) - 3.5) / np.arange(8).std()
    np.testing.assert_allclose(scaler([raw])[0][:, 0].numpy(), expected, rtol=1e-6)


def test_scaler_takes_arrays_integers_and_leading_dimensions() -> None:
    scaler = Scaler(["a"], [2])
    views = [np.array([[1, 2]]), torch.tensor([[1, 2]], dtype=torch.uint8), torch.tensor([[1.0, 2.0]]).half()]
    assert all(torch.equal(scaler([view])[0], torch.tensor([[1.0, 2.0]])) for view in views)
    assert scaler([torch.zeros(3, 5, 2)], torch.float64)[0].shape == (3, 5, 2)
    assert scaler([torch.zeros(2)])[0].shape == (2,)


@pytest.mark.parametrize(
    ("x", "kind", "sentence"),
    [
        (torch.zeros(2, 4), FusionError, "x … found Tensor."),
        ([torch.zeros(2, 4)], DimsError, "x … found 1."),
        ([torch.zeros(2, 4), torch.zeros(2, 4)], DimsError, "View 1 (b) … found shape (2, 4)."),
        ([torch.zeros(2, 4), torch.zeros(())], DimsError, "View 1 (b) … found shape ()."),
        ([None, torch.zeros(2, 3)], FusionError, "View 0 (a) … found NoneType."),
        ([["p"], torch.zeros(2, 3)], FusionError, "View 0 (a) … found list."),
        (
            [torch.zeros(2, 4, dtype=torch.complex64), torch.zeros(2, 3)],
            FusionError,
            "View 0 (a) … found torch.complex64.",
        ),
        ([torch.zeros(2, 4, device="meta")] * 2, FusionError, "View 0 (a) … found meta."),
    ],
)
def test_scaler_refuses(x: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=like(sentence)):
        Scaler(["a", "b"], [4, 3])(x)


def test_scaler_refuses_values_whose_variance_overflows() -> None:
    sentence = "View 0 (a) … found values up to 1e+300."
    with pytest.raises(FusionError, match=like(sentence)):
        Scaler(["a"], [1]).fit([np.array([[1e300], [-1e300]])])


# -- encoders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "layers"), [("none", 0), ("linear", 1), ("mlp", 2)])
def test_encoder_layers(kind: str, layers: int) -> None:
    made = encoder(kind, 4, 6)
    assert sum(isinstance(module, nn.Linear) for module in made.modules()) == layers
    assert made(torch.zeros(2, 4)).shape == (2, 6 if layers else 4)


# -- model -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "linear", "mlp"])
def test_model_maps_raw_views_to_logits(kind: str) -> None:
    model = small(kind).eval()
    assert model([torch.zeros(7, 4), torch.zeros(7, 3)]).shape == (7, 3)
    assert model([torch.zeros(0, 4), torch.zeros(0, 3)]).shape == (0, 3)


def test_model_is_scaler_encoders_fusion_head() -> None:
    model = small().eval()
    model.scaler.fit([np.arange(8.0).reshape(2, 4), np.arange(6.0).reshape(2, 3)])
    x = [torch.randn(2, 4), torch.randn(2, 3)]
    standardized = [
        ((view.double() - model.get_buffer(f"scaler.mean_{i}")) / model.get_buffer(f"scaler.scale_{i}")).float()
        for i, view in enumerate(x)
    ]
    weight = model.fusion.flat_w().view(5, 7)
    expected = model.network.head(torch.cat(standardized, -1) @ weight.T)
    torch.testing.assert_close(model(x), expected)


def test_dropout_only_while_training() -> None:
    model = small()
    x: list[Tensor] = [torch.ones(50, 4), torch.ones(50, 3)]
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_predict_returns_label_values() -> None:
    model = small().eval()
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.bias.copy_(torch.tensor([0.0, 2.0, 1.0]))
    assert model.predict([torch.zeros(2, 4), torch.zeros(2, 3)]) == ["y", "y"]


def test_model_needs_a_sized_fusion() -> None:
    fusion = fusionkit.create("average")
    with pytest.raises(DimsError, match=r"^average should .*found None, None\.$"):
        Network(fusion, [4, 4], 3, ModelOptions())


@pytest.mark.parametrize("kind", ["none", "linear", "mlp"])
@pytest.mark.parametrize("options", [{}, {"parameter_fabrication": "lowrank"}, {"preprocess": "layer_norm"}])
def test_description_round_trip(kind: str, options: dict[str, Any]) -> None:
    model = small(kind, **options).eval()
    description = json.loads(json.dumps(model.describe()))
    rebuilt = FusionModel.from_description(description)
    rebuilt.load_state_dict(model.state_dict())
    x = [torch.randn(6, 4), torch.randn(6, 3)]
    assert torch.equal(rebuilt(x), model(x))
    assert rebuilt.describe() == model.describe()
    assert not rebuilt.training
    assert rebuilt.classes == ["x", "y", "z"]


def test_description_keeps_the_dtype() -> None:
    model = small("linear")
    model.network.double()
    rebuilt = FusionModel.from_description(model.describe())
    assert {parameter.dtype for parameter in rebuilt.parameters()} == {torch.float64}


def test_description_of_an_operator_that_is_not_installed() -> None:
    description = small().describe()
    description["fusion"]["name"] = "gone"
    with pytest.raises(RegistryError, match="gone"):
        FusionModel.from_description(description)
