from __future__ import annotations

import copy
import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import fusionkit
from fusionkit.config.options import ModelOptions
from fusionkit.errors import DimsError, FusionError, RegistryError
from fusionkit.experiment import model
from fusionkit.experiment.model import FusionModel, Network, Scaler, encoder
from fusionkit.experiment.tasks.base import Task
from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.tasks.multilabel import Multilabel
from fusionkit.experiment.tasks.regression import Regression
from tests.contract.mutants.right import Says
from tests.experiment.explaining import Balanced
from tests.messages import like


def small(kind: str = "none", **options: Any) -> FusionModel:
    """Return a model of two views of widths 4 and 3, three classes."""
    seen = [4, 3] if kind == "none" else [6, 6]
    fusion = fusionkit.create("parameterized_concatenation", dims=seen, n=5, **options)
    return FusionModel(
        Scaler(["a", "b"], [4, 3]),
        Network(fusion, [4, 3], 3, ModelOptions.model_validate({"encoder": kind}), 0.3),
        Classification(["x", "y", "z"]),
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


@pytest.mark.parametrize("shape", [(1, 1), (7, 2), (5, 3), (129, 17), (1000, 64)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_the_scaler_has_the_same_bits_in_pieces(
    shape: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = (100 * np.random.default_rng(0).standard_normal(shape) + 1000).astype(dtype)
    found = []
    for values in (10**6, 1):
        monkeypatch.setattr(model, "_PIECE", values)
        scaler = Scaler(["a"], [shape[1]])
        scaler.fit([view])
        found.append(scaler.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


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
    array = np.array([[2.0, 1.0]])
    assert all(scaler([a])[0].tolist() == [[1.0, 2.0]] for a in (array[:, ::-1], array[:, ::-1].astype(np.longdouble)))
    assert scaler([torch.zeros(3, 5, 2)], torch.float64)[0].shape == (3, 5, 2)
    assert scaler([torch.zeros(2)])[0].shape == (2,)


@pytest.mark.parametrize(
    ("x", "kind", "sentence"),
    [
        (torch.zeros(2, 4), FusionError, "x … found Tensor."),
        ([torch.zeros(2, 4)], DimsError, "x … found 1."),
        ([torch.zeros(2, 4), torch.zeros(2, 4)], DimsError, "View 1 (b) … found shape (2, 4)."),
        ([torch.zeros(2, 4), torch.zeros(())], DimsError, "View 1 (b) … found shape ()."),
        (
            [np.ma.masked_array(np.zeros((2, 4)), np.eye(2, 4, dtype=bool)), torch.zeros(2, 3)],
            FusionError,
            "View 0 (a) … found 2.",
        ),
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


@pytest.mark.parametrize("factor", [1e-320, 1e-180, 1e170, 1e300])
def test_the_unit_of_a_column_does_not_matter(arrays: dict[str, Any], factor: float) -> None:
    scaler, plain = Scaler(["a"], [4]), Scaler(["a"], [4])
    scaler.fit([arrays["a"] * factor])
    plain.fit([arrays["a"]])
    found, wanted = scaler([arrays["a"] * factor])[0], plain([arrays["a"]])[0]
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)


def test_a_scale_that_float64_cannot_hold_is_that_of_a_constant() -> None:
    scaler = Scaler(["a"], [1])
    scaler.fit([np.array([[0.0], [5e-324]])])
    assert scaler.get_buffer("scale_0").tolist() == [1.0]


def test_scaler_refuses_values_whose_differences_overflow_and_stays_as_it_was() -> None:
    scaler = Scaler(["a", "b"], [1, 1])
    sentence = "View 1 (b) … found values up to 1.7e+308."
    with pytest.raises(FusionError, match=like(sentence)):
        scaler.fit([np.array([[1.0], [5.0], [5.0]]), np.array([[1.7e308], [-1.7e308], [-1.7e308]])])
    with pytest.raises(FusionError, match=like("View 0 (a) … found")):
        scaler.fit([np.array([[1.0], [np.inf]]), np.zeros((2, 1))])
    assert scaler.get_buffer("mean_0").tolist() == [0.0]


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


@pytest.mark.parametrize("cast", ["bfloat16", "half", "float"])
def test_a_cast_keeps_the_precision_of_the_scaler(cast: str) -> None:
    model, raw = small().eval(), [1e4 + np.random.randn(50, 4), np.random.randn(50, 3)]
    model.scaler.fit(raw)
    wanted = copy.deepcopy(model)
    getattr(wanted.network, cast)()
    getattr(nn.ModuleList([model]), cast)()
    assert torch.equal(model(raw), wanted(raw))
    assert model.scaler.get_buffer("mean_0").dtype == torch.float64
    assert model.to("meta").scaler.get_buffer("mean_0").device.type == "meta"
    assert model.to_empty(device="cpu").scaler.get_buffer("mean_0").device.type == "cpu"


def test_an_averaged_model_keeps_the_scaler() -> None:
    model = small().eval()
    model.scaler.fit([1e4 + np.random.randn(50, 4), np.random.randn(50, 3)])
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    for _ in range(3):
        averaged.update_parameters(model)
    assert torch.equal(averaged.get_buffer("module.scaler.mean_0"), model.scaler.get_buffer("mean_0"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_quantized_model_predicts() -> None:
    from torch.ao.quantization import quantize_dynamic

    model, x = small().eval(), [1e4 + np.random.randn(50, 4), np.random.randn(50, 3)]
    model.scaler.fit(x)
    quantized = quantize_dynamic(model, {nn.Linear}, dtype=torch.float16)
    assert not isinstance(quantized.network.head, nn.Linear)
    torch.testing.assert_close(quantized(x), model(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(math.nan, "View 1 (b) … found 1 with NaN, the first is row 1."), (math.inf, "View 1 (b) … found 1 in")],
)
def test_predict_refuses_what_is_not_finite(value: float, sentence: str) -> None:
    view = torch.zeros(2, 3)
    view[1, 2] = value
    with pytest.raises(FusionError, match=like(sentence)):
        small().predict([torch.zeros(2, 4), view])
    model = small()
    with torch.no_grad():
        model.network.head.bias.fill_(value)
    with pytest.raises(FusionError, match=like("The trained model … found others.")):
        model.predict([torch.zeros(2, 4), torch.zeros(2, 3)])


def test_predict_leaves_each_module_in_its_mode() -> None:
    model = small().eval()
    model.network.dropout.train()
    x = [torch.randn(50, 4), torch.randn(50, 3)]
    assert len({tuple(model.predict(x)) for _ in range(5)}) == 1
    assert [name for name, module in model.named_modules() if module.training] == ["network.dropout"]


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


# -- tasks -------------------------------------------------------------------------------------------------------------

#: Numbers that no float32 holds, and that text should give back to the last bit.
UNITS = Regression(["a", "b"], [1e9 + 1 / 3, -0.1], [1e-12, 0.1 + 0.2])


def of_task(task: Task) -> FusionModel:
    torch.manual_seed(0)
    fusion = fusionkit.create("parameterized_concatenation", dims=[4, 3], n=5)
    network = Network(fusion, [4, 3], task.outputs, ModelOptions())
    return FusionModel(Scaler(["a", "b"], [4, 3]), network, task).eval()


@pytest.mark.parametrize(
    "task", [Classification([1.5, 2.0]), Multilabel(["red", "round"]), UNITS], ids=lambda t: t.name
)
def test_a_description_round_trip_of_every_task(task: Task) -> None:
    model = of_task(task)
    rebuilt = FusionModel.from_description(json.loads(json.dumps(model.describe(), allow_nan=False)))
    assert rebuilt.task == task
    rebuilt.load_state_dict(model.state_dict())
    x = [torch.randn(6, 4), torch.randn(6, 3)]
    assert rebuilt.predict(x) == model.predict(x)
    assert torch.equal(rebuilt(x), model(x))


def test_a_regression_predicts_in_its_units() -> None:
    task = Regression(["offset", "tiny"], [1e9, 2e-12], [1.0, 1e-12])
    model, x = of_task(task), [torch.randn(6, 4), torch.randn(6, 3)]
    standard = model.network(model.scaler(x)).double().detach().numpy()
    np.testing.assert_array_equal(model.predict(x), standard * [1.0, 1e-12] + [1e9, 2e-12])
    np.testing.assert_allclose(model(x).detach(), standard * [1.0, 1e-12] + [1e9, 2e-12], rtol=1e-6)
    assert model.classes == []
    with pytest.raises(FusionError, match=like("predict_proba … found a regression.")):
        model.predict_proba(x)


def test_a_single_target_is_a_number_per_row() -> None:
    model = of_task(Regression(["y"], [3.0], [2.0]))
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.bias.fill_(0.5)
    assert model.predict([torch.zeros(2, 4), torch.zeros(2, 3)]) == [4.0, 4.0]


def test_a_multilabel_model_says_which_labels_a_row_has() -> None:
    model = of_task(Multilabel(["red", "round", "big"]))
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.bias.copy_(torch.tensor([0.0, -1e-3, 3.0]))
    x = [torch.zeros(2, 4), torch.zeros(2, 3)]
    assert model.predict(x) == [[1, 0, 1]] * 2  # A label is predicted at the probability 0.5.
    np.testing.assert_allclose(model.predict_proba(x), 1 / (1 + np.exp([[0, 1e-3, -3]] * 2)), rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "clustering"},
        {"targets": ["a"]},
        {"targets": "ab"},
        {"targets": [1, 2]},
        {"targets": [], "target_mean": [], "target_scale": []},
        {"target_scale": [1.0, 0.0]},
        {"target_scale": [1.0, -1.0]},
        {"target_scale": [1.0, math.inf]},
        {"target_mean": [0.0, math.nan]},
        {"target_mean": [0.0, "1"]},
        {"target_mean": [0.0]},
        {"target_mean": [0.0, None]},
        {"target_mean": [[0.0], [0.0]]},
        {"target_mean": None},
        {"task": "multilabel"},
        {"task": "multilabel", "classes": []},
        {"task": "classification", "classes": "ab"},
    ],
    ids=str,
)
def test_a_damaged_description_of_a_task(change: dict[str, Any]) -> None:
    description = of_task(Regression(["a", "b"], [0.0, 0.0], [1.0, 1.0])).describe()
    with pytest.raises((ValueError, KeyError, TypeError)):
        FusionModel.from_description({**description, **change})


def test_a_data_frame_needs_a_model_of_a_table() -> None:
    with pytest.raises(FusionError, match=like("A data frame … found a model of arrays.")):
        small().predict(SimpleNamespace(columns=["a"]))


# -- missing views -----------------------------------------------------------------------------------------------------


def trained(kind: str = "none", impute: str | None = None, **options: Any) -> FusionModel:
    """Return a model whose scaler has means and scales, in evaluation mode."""
    model = small(kind, **options).eval()
    model.scaler.impute = impute
    random = np.random.default_rng(0)
    model.scaler.fit([random.normal(3, 2, (20, 4)), random.normal(-1, 5, (20, 3))])
    return model


def views(rows: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, width, generator=generator) for width in (4, 3)]


def test_the_scaler_is_fitted_on_the_rows_that_are_present(arrays: dict[str, Any]) -> None:
    mask = np.ones((60, 2), dtype=bool)
    mask[:20, 0] = mask[30:, 1] = False
    given = [arrays["a"].copy(), arrays["b"].astype(np.float64)]
    given[0][:20], given[1][30:] = np.nan, 1e300
    scaler, wanted = Scaler(["a", "b"], [4, 3]), Scaler(["a", "b"], [4, 3])
    scaler.fit(given, mask)
    wanted.fit([arrays["a"][20:], arrays["b"][:30]])
    for name, buffer in wanted.named_buffers():
        assert torch.equal(scaler.get_buffer(name), buffer)


def test_a_view_without_a_row_to_fit_is_named() -> None:
    scaler = Scaler(["a", "b"], [1, 1])
    with pytest.raises(FusionError, match=like("View 1 (b) … the training part at least; found it in none.")):
        scaler.fit([np.ones((3, 1))] * 2, np.array([[True, False]] * 3))


def test_means_stand_for_nan() -> None:
    view = np.array([[1.0, 4.0], [np.nan, 8.0], [3.0, np.nan], [np.nan, np.nan]])
    scaler = Scaler(["a"], [2], impute="mean")
    scaler.fit([view], np.array([[True], [True], [True], [False]]))
    wanted = StandardScaler().fit([[1.0, 4.0], [2.0, 8.0], [3.0, 6.0]])
    np.testing.assert_allclose(scaler.get_buffer("mean_0"), wanted.mean_)
    np.testing.assert_allclose(scaler.get_buffer("scale_0"), wanted.scale_)
    (found,) = scaler([view])
    assert found is not None
    assert found.isnan().tolist() == [[False, False]] * 3 + [[True, True]]
    assert (found[1, 0], found[2, 1]) == (0.0, 0.0)
    with pytest.raises(FusionError, match=like("View 0 (a) … found column 1 without any.")):
        scaler.fit([np.array([[1.0, np.nan], [2.0, np.nan]])])


@pytest.mark.parametrize("kind", ["none", "mlp"])
@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e300])
def test_what_is_absent_counts_neither_for_logits_nor_for_gradients(kind: str, junk: float) -> None:
    model, mask = trained(kind).train(), torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    found = []
    for filler in (0.0, junk):
        given = [view.double() for view in views(4)]
        given = [torch.where(mask[:, i : i + 1], view, filler).requires_grad_() for i, view in enumerate(given)]
        model.network.zero_grad()
        torch.manual_seed(0)
        logits = model(given, mask)
        logits.sum().backward()
        gradients = [view.grad for view in given] + [parameter.grad for parameter in model.parameters()]
        found.append([logits.detach(), *(gradient for gradient in gradients if gradient is not None)])
    assert len(found[0]) == len(found[1])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(value.isfinite().all() for value in found[1])


def test_logits_are_those_of_the_operator_with_a_mask() -> None:
    model, x = trained(), views()
    mask = torch.tensor([[True, True], [True, False], [False, True], [False, False], [True, True]])
    standard = model.scaler(x)
    wanted = model.network.head(model.fusion(standard, mask=mask))
    for given in (mask, mask.numpy(), mask.tolist()):
        torch.testing.assert_close(model(x, given), wanted, rtol=0, atol=0)
    assert torch.equal(model(x, torch.ones(5, 2, dtype=torch.bool)), model(x))


def test_none_is_an_absent_view_whose_encoder_does_not_run() -> None:
    model, x = trained("linear"), views()
    wanted = model(x, torch.tensor([[True, False]]).expand(5, 2))
    model.network.encoders[1].register_forward_hook(lambda *_: pytest.fail("the encoder ran"))
    for found in (
        model([x[0], None]),
        model.evaluate([x[0], None]).float(),
        model([x[0], None], torch.ones(5, 2).bool()),
    ):
        torch.testing.assert_close(found, wanted)


def test_predict_takes_rows_of_nan_as_absent_and_forward_does_not() -> None:
    model, x = trained(), views()
    mask = torch.tensor([[True, True], [True, False], [False, True], [False, False], [True, True]])
    with_nan = [torch.where(mask[:, i : i + 1], view, math.nan) for i, view in enumerate(x)]
    torch.testing.assert_close(model.evaluate(with_nan).float(), model(x, mask), rtol=0, atol=0)
    assert model.predict(with_nan) == model.predict(x, mask) == model.predict(with_nan, mask.numpy())
    assert model(with_nan)[1:4].isnan().all()


@pytest.mark.parametrize(
    ("change", "mask", "sentence"),
    [
        (math.nan, None, "At least one row … found none in 5 rows."),
        (1.0, torch.zeros(5, 2, dtype=torch.bool), "At least one row … found none in 5 rows."),
        (
            math.nan,
            torch.ones(5, 2, dtype=torch.bool),
            "View 0 (a) … the mask calls present; found 5 with NaN, the first",
        ),
        (1.0, torch.ones(5, 2), "mask … found float32."),
        (1.0, np.ones((5, 2), dtype=object), "mask … found object."),
        (1.0, torch.ones(5, 3, dtype=torch.bool), "mask … (5, 2), a column per view; found (5, 3)."),
    ],
)
def test_predict_refuses_masks_that_do_not_fit(change: float, mask: Any, sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        trained().predict([view * change for view in views()], mask)
    with pytest.raises(FusionError, match=like("x … found None for every view.")):
        trained().predict([None, None])


@pytest.mark.parametrize("kind", ["none", "linear"])
@pytest.mark.parametrize("call", ["forward", "predict"])
@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.ones(5, 3, dtype=torch.bool), "mask … (5, 2), a column per view; found (5, 3)."),
        (torch.ones(4, 2, dtype=torch.bool), "mask … (5, 2), a column per view; found (4, 2)."),
        (torch.ones(5, 2), "mask … found float32."),
        (torch.ones(5, 2, dtype=torch.bool, device="meta"), "mask … on cpu, as the views are; found meta."),
    ],
    ids=["views", "rows", "dtype", "device"],
)
def test_a_wrong_mask_is_told_before_an_encoder_gets_it(kind: str, call: str, mask: Any, sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        getattr(trained(kind), call)(views(), mask)


def test_rows_of_different_views_differ_in_number() -> None:
    with pytest.raises(FusionError, match=like("View 1 … found (4,).")):
        trained().predict([views(5)[0], views(4)[1]])


def test_some_nan_in_a_row_to_predict_needs_a_model_that_imputes() -> None:
    x = views()
    x[0][2, 1] = math.nan
    with pytest.raises(FusionError, match=like("View 0 (a) … found 1 with NaN, the first is row 2.")):
        trained().predict(x)
    model = trained(impute="mean")
    again = FusionModel.from_description(json.loads(json.dumps(model.describe())))
    again.load_state_dict(model.state_dict())
    mended = [view.clone() for view in x]
    mended[0][2, 1] = model.scaler.get_buffer("mean_0")[1]
    for one in (model, again):
        torch.testing.assert_close(one.evaluate(x).float(), model(mended), rtol=1e-6, atol=1e-6)
    assert "impute" not in trained().describe()
    with pytest.raises(ValueError, match="impute 'median'"):
        FusionModel.from_description({**model.describe(), "impute": "median"})


# -- without a head ----------------------------------------------------------------------------------------------------


def bare(fusion: str = "average", kind: str = "linear", task: Task | None = None, **options: Any) -> FusionModel:
    """Return a model of two views of widths 4 and 3 without a head; without encoders both views have three columns."""
    task = Classification(["x", "y", "z"]) if task is None else task
    dims = [3, 3] if kind == "none" else [4, 3]
    made = fusionkit.create(fusion, dims=dims if kind == "none" else [task.outputs] * 2, **options)
    chosen = ModelOptions.model_validate({"encoder": kind, "head": "none", "activation": "relu"})
    return FusionModel(Scaler(["a", "b"], dims), Network(made, dims, task.outputs, chosen), task).eval()


@pytest.mark.parametrize("task", [Classification([1.5, 2.0]), Multilabel(["r", "s", "t"]), UNITS], ids=lambda t: t.name)
def test_without_a_head_the_output_is_that_of_the_fusion(task: Task) -> None:
    model, x = bare(task=task), [torch.randn(6, 4), torch.randn(6, 3)]
    first, second = (encode(view) for encode, view in zip(model.network.encoders, x, strict=True))
    assert torch.equal(model.network(x), (first + second) / 2)  # Negative numbers too: no activation.
    assert torch.equal(model(x), task.in_units(model.network(model.scaler(x))))
    rebuilt = FusionModel.from_description(json.loads(json.dumps(model.describe(), allow_nan=False)))
    rebuilt.load_state_dict(model.state_dict())
    assert rebuilt.predict(x) == model.predict(x)
    assert rebuilt.describe() == model.describe()


def test_only_a_model_without_a_head_says_so() -> None:
    assert bare().describe()["head"] == "none"
    assert "head" not in small().describe()


@pytest.mark.parametrize(
    ("kind", "options"), [("linear", {}), ("none", {"preprocess": "linear"}), ("none", {"missing": "placeholder"})]
)
def test_the_dtype_of_a_model_without_a_head(kind: str, options: dict[str, Any]) -> None:
    model = bare(kind=kind, **options)
    assert model.network.dtype == torch.float32
    model.network.double()
    assert model.network.dtype == torch.float64
    x = [torch.randn(6, width, dtype=torch.float64) for width in model.scaler.dims]
    rebuilt = FusionModel.from_description(model.describe())
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt.evaluate(x), model.evaluate(x))


def test_a_model_may_have_nothing_to_learn() -> None:
    model = bare(kind="none").double()
    x = [torch.randn(6, 3, dtype=torch.float64) for _ in range(2)]
    assert not list(model.parameters())
    assert model.network.dtype == torch.float32
    torch.testing.assert_close(model.evaluate(x), (x[0] + x[1]) / 2)


def test_without_a_head_a_fusion_of_another_width_is_refused() -> None:
    fusion = fusionkit.create("concatenation", dims=[4, 3])
    sentence = "The output of 'concatenation' should have the width 3, … found 7.  model.head=linear takes any width."
    with pytest.raises(DimsError, match=like(sentence)):
        Network(fusion, [4, 3], 3, ModelOptions(head="none"))
    Network(fusion, [4, 3], 7, ModelOptions(head="none"))


# -- operators that explain themselves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "none"])
def test_a_network_returns_the_loss_of_its_fusion(head: Any) -> None:
    torch.manual_seed(0)
    network = Network(Balanced(dims=[3, 3]), [4, 3], 3, ModelOptions(encoder="linear", head=head))
    x, mask = [torch.randn(6, 4), torch.randn(6, 3)], torch.rand(6, 2) > 0.3
    assert network.has_loss()
    assert network.training
    said = network.explain(x, mask)
    weights = said["weights"]
    assert (weights > 0).equal(mask)
    output, loss = network(x, mask=mask, with_loss=True)
    assert torch.equal(output, network(x, mask=mask))
    torch.testing.assert_close(loss, 3 * weights.square().sum(-1).mean())
    assert torch.equal(network.head(network.activation(said["output"])), network(x, mask=mask))


def test_a_model_explains_raw_views() -> None:
    torch.manual_seed(0)
    network = Network(Balanced(dims=[3, 3]), [4, 2], 2, ModelOptions(encoder="linear"))
    model = FusionModel(Scaler(["a", "b"], [4, 2]), network, Classification(["no", "yes"])).train()
    x = [torch.randn(5, 4).double(), torch.randn(5, 2).double()]
    x[1][2] = torch.nan
    said = model.explain(x)
    present = torch.ones(5, 2, dtype=torch.bool)
    present[2, 1] = False
    assert (said["weights"] > 0).equal(present)
    assert not said["weights"].requires_grad
    assert model.training
    clean = [x[0].float(), torch.where(present[:, 1:], x[1], 0.0).float()]
    torch.testing.assert_close(said["weights"], network.explain(clean, present)["weights"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_only_what_explains_a_loss_has_one(dtype: torch.dtype) -> None:
    def network(fusion: Any) -> Network:
        return Network(fusion, [3, 3], 3, ModelOptions()).to(dtype)

    assert network(Balanced(dims=[3, 3])).has_loss()
    assert not network(Says(dims=[3, 3])).has_loss()
    assert not network(fusionkit.create("average", dims=[3, 3])).has_loss()
    assert network(fusionkit.create("average", dims=[3, 3])).explain([torch.randn(2, 3, dtype=dtype)] * 2) == {}
