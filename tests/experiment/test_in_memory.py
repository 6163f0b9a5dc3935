"""``fusionkit.experiment.train``: the model and the record of a run on arrays, tensors and data frames."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score, average_precision_score, mean_absolute_error, r2_score

import fusionkit
from fusionkit.config import compose
from fusionkit.errors import ConfigError, DimsError, FusionError
from fusionkit.experiment import train
from fusionkit.experiment.results import Result
from tests.experiment.estimators import data, linear
from tests.messages import like
from tests.run_records import run_job

SMALL: dict[str, Any] = {"n": 5, "epochs": 4, "batch_size": 16}


def views() -> tuple[dict[str, Any], Any]:
    X, y = data()
    return {"first": X[:, :4], "second": X[:, 4:]}, y


def frames() -> tuple[dict[str, Any], Any]:
    pandas = pytest.importorskip("pandas")
    X, y = data()
    first = pandas.DataFrame(X[:, :4], columns=[*"abcd"]).assign(kind=np.where(X[:, 0] > 0.5, "x", "y"))
    return {"first": first, "second": pandas.DataFrame(X[:, 4:], columns=[*"efg"])}, pandas.Series(y, name="species")


# -- what a run does ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "overrides", "roles"),
    [
        ({"validation_size": 0.2, "patience": 2}, ["data.validation_size=0.2", "train.patience=2"], {}),
        (
            {"fusion": "average", "encoder": "linear", "seed": 3, "metric": "log_loss"},
            ["fusion=average", "model.encoder=linear", "seed=3", "metric=log_loss"],
            {"weight": np.arange(90.0), "group": np.arange(90) // 3 % 10},
        ),
        (
            {"fusion": "average", "encoder": "linear", "head": "none"},
            ["fusion=average", "model.encoder=linear", "model.head=none"],
            {},
        ),
        (
            {"fabrication": {"name": "lowrank", "r": 2}, "class_weight": {"a": 2}, "fold": 2},
            ["fabrication=lowrank", "fabrication.r=2", "train.class_weight={a:2}", "data.fold=2"],
            {"folds": np.arange(90) % 5},
        ),
        (
            {"fusion": {"name": "parameterized_concatenation", "missing": "placeholder"}, "view_dropout": 0.2},
            ["fusion.missing=placeholder", "train.view_dropout=0.2"],
            {"split": np.array(["train", "val", "test"])[np.arange(90) // 3 % 3]},
        ),
    ],
)
def test_it_is_a_run_without_files(tmp_path: Path, options: Any, overrides: list[str], roles: Any) -> None:
    arrays, y = views()
    np.savez(tmp_path / "data.npz", **arrays, label=y, **roles)
    common = ["n=5", "train.epochs=4", "train.batch_size=16", "data=npz", f"data.path={tmp_path / 'data.npz'}"]
    wanted = run_job(compose([*common, *overrides]), tmp_path / "run", quiet=True)
    model, found = train(arrays, y, **SMALL, **options, **roles)
    assert found.keys() == wanted.keys() == Result.model_fields.keys() - {"error_type", "traceback"}
    differ = {key for key in found if json.loads(json.dumps(found[key])) != wanted[key]}
    assert differ <= {"seconds", "config_hash", "data", "config"}
    assert {key for key in wanted["data"] if found["data"][key] != wanted["data"][key]} == {"label", "digest"}
    assert {key for key in wanted["config"] if found["config"][key] != wanted["config"][key]} == {"data"}
    saved = fusionkit.load(tmp_path / "run").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_without_options_the_config_is_that_of_a_run() -> None:
    arrays, y = views()
    _, found = train(arrays, y, epochs=1)
    wanted = compose(["data=npz", "data.path=nowhere", "train.epochs=1"])
    assert {key: value for key, value in found["config"].items() if key != "data"} == {
        key: value for key, value in wanted.items() if key != "data"
    }
    assert found["config"]["data"] == {**wanted["data"], "path": f"arrays:{found['data']['digest']}"}


def test_the_same_data_have_the_same_hash_and_others_another() -> None:
    arrays, y = views()
    other = {**arrays, "second": arrays["second"] + 1}
    hashes = [
        train(given, y, epochs=1, seed=seed)[1]["config_hash"]
        for given, seed in [(arrays, 0), (arrays, 0), (arrays, 1), (other, 0)]
    ]
    assert hashes[0] == hashes[1]
    assert len({*hashes}) == 3


def test_an_optional_operator_option_wins_over_the_shared_one() -> None:
    arrays, y = views()
    model, found = train(arrays, y, fusion={"name": "parameterized_concatenation", "n": 3}, **SMALL)
    assert model.fusion.n == found["n"] == 3
    assert found["config"]["n"] == 5


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_metrics_of_a_regression_are_those_of_scikit_learn() -> None:
    X, y = linear()
    split = np.where(np.arange(120) < 90, "train", "test")
    options = {
        "fusion": "concatenation",
        "input_dropout": 0.0,
        "weight_decay": 0.0,
        "epochs": 300,
        "lr": 0.05,
        "activation": "none",
    }
    model, found = train({"a": X[:, :2], "b": X[:, 2:]}, y, split=split, batch_size=512, **options)
    predicted = model.predict([X[90:, :2], X[90:, 2:]])
    assert (found["task"], found["metric"], found["targets"]) == ("regression", "r2", ["label"])
    assert found["metrics"]["r2"] == pytest.approx(r2_score(y[90:], predicted))
    assert found["metrics"]["mae"] == pytest.approx(mean_absolute_error(y[90:], predicted))
    np.testing.assert_allclose(predicted, LinearRegression().fit(X[:90], y[:90]).predict(X[90:]), atol=0.5)


def test_several_columns_of_zeros_and_ones_are_labels() -> None:
    pandas = pytest.importorskip("pandas")
    arrays, y = views()
    labels = pandas.DataFrame({"is_a": y == "a", "not_c": y != "c"})
    split = np.where(np.arange(90) < 60, "train", "test")
    model, found = train(arrays, labels, split=split, **SMALL)
    assert (found["task"], found["classes"]) == ("multilabel", ["is_a", "not_c"])
    probabilities = model.predict_proba([view[60:] for view in arrays.values()])
    wanted = average_precision_score(labels.to_numpy()[60:], probabilities)
    assert found["metrics"]["average_precision"] == pytest.approx(wanted)
    _, as_amounts = train(arrays, labels.astype(int), task="regression", **SMALL)
    assert as_amounts["targets"] == ["is_a", "not_c"]


# -- forms of the data -------------------------------------------------------------------------------------------------


def test_tensors_lists_and_arrays_are_the_same() -> None:
    arrays, y = views()
    _, wanted = train(arrays, y, **SMALL)
    tensors = {name: torch.from_numpy(view).requires_grad_() for name, view in arrays.items()}
    lists = {name: view.tolist() for name, view in arrays.items()}
    for given, label in ((tensors, y.tolist()), (lists, np.array(y, dtype=object))):
        _, found = train(given, label, **SMALL)
        assert (found["history"], found["data"]["digest"]) == (wanted["history"], wanted["data"]["digest"])
    half = {name: view.bfloat16() for name, view in tensors.items()}
    rounded = {name: view.float().detach().numpy() for name, view in half.items()}
    index = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    assert train(half, index, **SMALL)[1]["history"] == train(rounded, index.numpy(), **SMALL)[1]["history"]


def test_a_mask_is_the_same_as_rows_of_nan() -> None:
    arrays, y = views()
    mask = np.random.default_rng(0).random((90, 2)) < 0.8
    lacking = {name: np.where(mask[:, [i]], view, np.nan) for i, (name, view) in enumerate(arrays.items())}
    _, first = train(lacking, y, **SMALL)
    _, second = train(arrays, y, mask=torch.from_numpy(mask), **SMALL)
    assert first["history"] == second["history"]
    assert (
        first["data"]["missing"]
        == second["data"]["missing"]
        == {"first": int((~mask[:, 0]).sum()), "second": int((~mask[:, 1]).sum())}
    )
    assert [one["config"]["data"]["missing"] for one in (first, second)] == ["nan", "mask"]
    arrays["first"][3, 1] = np.nan
    assert train(arrays, y, impute="mean", **SMALL)[1]["metrics"]["accuracy"] >= 0


def test_data_frames_have_categories_and_the_model_predicts_frames() -> None:
    given, y = frames()
    split = np.where(np.arange(90) < 60, "train", "test")
    model, found = train(given, y, split=split, **SMALL)
    assert found["data_dims"] == [6, 3]
    whole = given["second"].join(given["first"])[[*"gfedcba", "kind"]]
    assert found["metrics"]["accuracy"] == accuracy_score(y[60:], model.predict(whole[60:]))
    kinds = given["first"].pop("kind")
    given["first"] = given["first"].assign(x=(kinds == "x").astype(float), y=kinds == "y")
    assert train(given, y, split=split, **SMALL)[1]["history"] == found["history"]


def test_frames_beside_arrays_or_with_equal_names_are_arrays() -> None:
    given, y = frames()
    del given["first"]["kind"]
    arrays, _ = views()
    _, wanted = train(arrays, y, **SMALL)
    for mixed in (
        {**arrays, "second": given["second"]},
        {n: view.set_axis(range(view.shape[1]), axis=1) for n, view in given.items()},
    ):
        model, found = train(mixed, y, **SMALL)
        assert found["history"] == wanted["history"]
        assert model.table is None


def test_series_have_roles() -> None:
    pandas = pytest.importorskip("pandas")
    given, y = frames()
    group = pandas.Series([f"{i:03}" for i in np.arange(90) // 3 % 10], name="patient")
    found = train(given, y, group=group, weight=pandas.Series(np.arange(90)), **SMALL)[1]
    wanted = train(given, y, group=group.to_numpy(dtype=str), weight=np.arange(90), **SMALL)[1]
    assert found["history"] == wanted["history"]


# -- what is shown and refused -----------------------------------------------------------------------------------------


def test_progress_is_shown_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    arrays, y = views()
    train(arrays, y, **SMALL)
    assert capsys.readouterr() == ("", "")
    train(arrays, y, **SMALL, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "data: 90 rows of the arrays; views with their widths: first (4), second (3)"
    assert "training parameterized_concatenation (dense) on the arrays, seed 0\n" in err
    assert "epoch 4/4" in err


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"epoch": 3}, TypeError, "train should be given options of a run; found 'epoch'. Did you mean 'epochs'"),
        ({"path": "data.npz"}, TypeError, "train should be given options of a run; found 'path'."),
        ({"epochs": 0}, ConfigError, "epochs should be an integer of at least 1; found 0."),
        ({"n": "many"}, ConfigError, "n should be an integer of at least 1; found 'many'."),
        ({"test_size": 2}, ConfigError, "test_size should be a number of at least 0 and below 1; found 2."),
        ({"encoder": "cnn"}, ConfigError, "encoder should be one of none, linear, mlp; found 'cnn'."),
        ({"impute": "median"}, ConfigError, "impute should be 'mean' or None; found 'median'."),
        ({"patience": 3}, ConfigError, "patience should be … found none.  validation_size=0.2 makes one."),
        ({"task": "regression"}, ConfigError, "The argument label … task=regression; found 'a' in row 0."),
        ({"metric": "r2"}, ConfigError, "metric should be None or … for a task of classification; found 'r2'."),
        ({"fusion": "average"}, DimsError, "average … found dims [4, 3], … encoder=linear makes"),
        ({"fusion": "averag"}, ConfigError, "… found 'averag'. Did you mean 'average'"),
        ({"fusion": "concatenation", "fabrication": "lowrank"}, ConfigError, "fabrication … found 'lowrank'."),
        ({"fusion": {"name": "average", "depth": 2}}, ConfigError, "There is no key 'fusion.depth'."),
        ({"device": "cuda:99"}, FusionError, "device should be one of this machine"),
        ({"group": [1.5] * 90}, FusionError, "The array 'group' of the arrays … found 1.5 in row 0."),
        (
            {"weight": np.ones(89)},
            FusionError,
            "The array 'weight' of the arrays … (90,), a value per row; found (89,).",
        ),
        ({"mask": np.ones((90, 3), dtype=bool)}, FusionError, "The array 'mask' of the arrays … found (90, 3)."),
        ({"split": [*"ab"] * 45}, FusionError, "The words in the array 'split' of the arrays … found 'a' in row 0."),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    arrays, y = views()
    with pytest.raises(kind, match=like(sentence)):
        train(arrays, y, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("given", "label", "sentence"),
    [
        ([np.ones((9, 2))], np.arange(9), "views should be a mapping of names to views; found list."),
        ({}, np.arange(9), "the arrays should contain at least one view besides 'label'; found none."),
        ({"weight": np.ones((9, 2))}, np.arange(9), "A view should have another name … found 'weight'."),
        ({"mask": np.ones((9, 2))}, np.arange(9), "A view should have another name … found 'mask'."),
        ({"a": np.ones(9)}, np.arange(9), "View 'a' of the arrays … found (9,)."),
        ({"a": [["x"]] * 9}, np.arange(9), "View 'a' of the arrays should contain real numbers; found dtype <U1."),
        ({"a": np.ones((9, 2)), "b": np.ones((8, 2))}, np.arange(9), "View 'b' of the arrays … found 8."),
        ({"a": np.ones((9, 2))}, np.arange(8), "The array 'label' of the arrays … found (8,)."),
        ({"a": np.ones((9, 2))}, ["x", None] * 4 + ["y"], "The argument label … found NoneType in row 1."),
        ({"a": np.ones((9, 2))}, ["x"] * 9, "The argument label … at least two classes; found only 'x'."),
        (
            {"a": np.ma.masked_less(np.ones((9, 2)), 2)},
            np.arange(9),
            "View 'a' should have no masked entries; found 18.",
        ),
    ],
)
def test_data_that_do_not_fit(given: Any, label: Any, sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        train(given, label, **SMALL)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda given, y: ({**given, "second": given["second"].to_numpy()}, y),
            "Column 'kind' of view 'first' … found text.",
        ),
        (lambda given, y: ({**given, "second": given["second"][::-1]}, y), "views['first'] and views['second'] should"),
        (lambda given, y: (given, y[::-1]), "views['first'] and label should have their rows in the same order"),
        (
            lambda given, y: (given, y.where(y.index != 7)),
            "Column 'species' of the argument label … the first is row 7.",
        ),
        (
            lambda given, y: ({"first": given["first"][[*"aa"]]}, y),
            "View 'first' should have columns … found 'a' 2 times.",
        ),
        (lambda given, y: ({"first": given["first"][[]]}, y), "View 'first' should have columns … found no column."),
        (
            lambda given, y: ({"s": given["second"].mask(given["second"] > 9)}, y),
            "Column 'e' of view 's' … impute=mean fills",
        ),
    ],
    ids=["text beside arrays", "order", "order of labels", "missing label", "doubled name", "no column", "missing"],
)
def test_data_frames_that_do_not_fit(change: Any, sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        train(*change(*frames()), **SMALL)


def test_an_argument_is_no_option_too() -> None:
    from fusionkit.experiment.in_memory import _GROUPS

    assert not _GROUPS.keys() & inspect.signature(train).parameters.keys()
    assert {"n", "seed", "test_size", "fold", "impute", "encoder", "epochs", "class_weight", "refit"} <= _GROUPS.keys()


def test_rows_of_different_lengths() -> None:
    with pytest.raises(FusionError, match="The argument label should have the same number of values in each row"):
        train({"a": np.zeros((4, 2))}, [["x", "y"], ["x"]] * 2)
