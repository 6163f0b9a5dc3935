"""Runs of every task: records, validation parts, refits and what is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

import fusionkit
from fusionkit.config.options import data_options, validate
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import results, run
from fusionkit.experiment.data import load_data
from fusionkit.experiment.job import run_recorded
from fusionkit.experiment.splits import Parts, split
from tests.exhaustive import exhaustive, exhaustive_unless
from tests.experiment.explaining import explaining
from tests.messages import like
from tests.run_records import run_job

Config = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


def labelled(arrays: dict[str, Any], task: str) -> Any:
    """Return a label of a task that the views tell; of the regressions one has a large offset."""
    first, last = arrays["a"][:, 0], arrays["b"][:, 2] / 100
    return {
        "classification": np.array(["low", "mid", "top"])[arrays["label"]],
        "binary": np.array(["no", "yes"])[(arrays["label"] == 1).astype(int)],
        "multilabel": np.stack([arrays["label"] > 0, arrays["label"] == 1], 1),
        "regression": 1e6 + 10 * first - last,
        "targets": np.stack([first + 0.5, 1e-9 * last], 1),
    }[task]


TASKS = ("classification", "binary", "multilabel", "regression", "targets")


@pytest.fixture
def task_run(config: Config, npz: Write, arrays: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a task on the small data in the folder ``run``."""

    def make(label: str, more: dict[str, Any] | None = None, quiet: bool = True, **changes: Any) -> dict[str, Any]:
        npz(**{"label": labelled(arrays, label), **(more or {})})
        return run_job(plain(**changes), tmp_path / "run", quiet=quiet)

    def plain(**changes: Any) -> dict[str, Any]:
        options = {"train__epochs": 40, "train__batch_size": 4, "train__input_dropout": 0.0, "task": "auto", **changes}
        make.cfg = config(**options)  # type: ignore[attr-defined]
        return make.cfg  # type: ignore[attr-defined, no-any-return]

    return make


def parts_of(cfg: dict[str, Any]) -> Parts:
    data = load_data(cfg["data"], None, "auto")
    return split(data, data_options(cfg["data"]), cfg["seed"])


# -- records -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", exhaustive_unless(lambda task: task in ("classification", "targets"), TASKS))
def test_the_record_of_each_task_is_json_without_nan(task: str, task_run: Any, tmp_path: Path) -> None:
    found = task_run(task, data__validation_size=0.25)
    text = (tmp_path / "run" / results.RESULT).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == found
    results.read_result(tmp_path / "run" / results.RESULT)
    name = {"binary": "classification", "targets": "regression"}.get(task, task)
    assert found["task"] == name
    assert found["metrics"].keys() == found["validation"].keys() == found["baseline"].keys()
    assert found["metric"] == next(iter(found["metrics"]))
    assert found["metrics"][found["metric"]] > 0.2 + found["baseline"][found["metric"]]
    assert found["classes"] == {
        "classification": ["low", "mid", "top"],
        "binary": ["no", "yes"],
        "multilabel": ["0", "1"],
    }.get(task)
    assert found["targets"] == {"regression": ["label"], "targets": ["0", "1"]}.get(task)
    assert (found["confusion"] is None) == (name != "classification")
    assert {key: found["data"][f"{key}_rows"] for key in ("training", "validation", "test")} == {
        "training": 36,
        "validation": 12,
        "test": 12,
    }
    assert list(found["history"]) == ["loss", f"validation_{found['metric']}", "lr"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("curve.png", "model.safetensors", "result.json", "rows.npz", "views.png")
    ]


@pytest.mark.parametrize("task", exhaustive_unless(lambda task: task in ("classification", "targets"), TASKS))
def test_the_loaded_model_has_the_recorded_metrics(
    task: str, task_run: Any, tmp_path: Path, arrays: dict[str, Any]
) -> None:
    found = task_run(task)
    model, rows = fusionkit.load(tmp_path / "run"), parts_of(task_run.cfg).test
    views, label = [arrays["a"][rows], arrays["b"][rows]], labelled(arrays, task)[rows]
    predicted = model.predict(views)
    if task in ("regression", "targets"):
        assert found["metrics"]["r2"] == pytest.approx(reference.r2_score(label, predicted), rel=1e-6)
        if task == "regression":
            wanted = reference.root_mean_squared_error(label, predicted)
            assert found["metrics"]["rmse"] == pytest.approx(wanted, rel=1e-6)
            assert abs(np.mean(predicted) - 1e6) < 100
    elif task == "multilabel":
        wanted = reference.average_precision_score(label, model.predict_proba(views))
        assert found["metrics"]["average_precision"] == pytest.approx(wanted)
        assert found["metrics"]["subset_accuracy"] == np.mean((np.array(predicted) == label).all(1))
    else:
        assert found["metrics"]["accuracy"] == np.mean(np.array(predicted) == label)
        assert found["confusion"] == reference.confusion_matrix(label, predicted, labels=model.classes).tolist()


def test_the_baseline_is_learnt_from_the_training_part(task_run: Any, arrays: dict[str, Any]) -> None:
    found = task_run("regression", data__validation_size=0.25)
    parts, label = parts_of(task_run.cfg), labelled(arrays, "regression")
    given = label[parts.test], np.full(12, label[parts.training].mean())
    assert found["baseline"] == pytest.approx(
        {
            "r2": reference.r2_score(*given),
            "rmse": reference.root_mean_squared_error(*given),
            "mae": reference.mean_absolute_error(*given),
        }
    )


def test_metrics_that_the_test_part_does_not_define_are_null(
    task_run: Any, npz: Write, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = np.array(["test", "train", "train", "train"] * 15)
    words[1::3] = "train"  # Class "yes", of rows 1, 4, ..., is in no test row.
    found = task_run("binary", {"split": words}, metric="roc_auc", quiet=False)
    assert (found["metrics"]["roc_auc"], found["metrics"]["balanced_accuracy"]) == (None, None)
    assert found["history"]["roc_auc"] == [None] * 40
    out = capsys.readouterr().out
    assert re.search(
        r"^roc_auc +undefined on \d+ test rows \(largest class: undefined; positive: 'yes'\)$", out, re.MULTILINE
    )
    assert "warning" not in out


def test_options_that_do_not_fit_are_refused_before_the_training(task_run: Any, tmp_path: Path) -> None:
    for changes, sentence in (
        ({"metric": "r2"}, "metric … classification; found 'r2'."),
        ({"train__patience": 3}, "train.patience … a validation part; found none.  data.validation_size=0.2"),
        ({"train__refit": True}, "train.refit … a validation part; found none.  data.validation_size=0.2"),
        ({"task": "regression"}, "The array 'label' … task=regression; found "),
        ({"train__loss": "mse"}, "train.loss … classification; found 'mse'."),
        ({"train__class_weight": {"hi": 2}}, "train.class_weight … low, mid, top; found 'hi'."),
    ):
        with pytest.raises(ConfigError, match=like(sentence)):
            task_run("classification", **{"data__validation_size": 0.0, **changes})
        assert list((tmp_path / "run").iterdir()) == []


def test_a_target_that_is_constant_in_the_training_part(task_run: Any, npz: Write, arrays: dict[str, Any]) -> None:
    cfg_label = labelled(arrays, "targets")
    task_run("targets", train__epochs=1)
    rows = parts_of(task_run.cfg).test
    changed = np.full(60, 0.5)
    changed[rows] = 1.5
    cfg_label[:, 1] = changed
    npz(label=cfg_label)
    with pytest.raises(FusionError, match=like("The target '1' … training part; found 0.5 in all 48 rows.")):
        run.run_job(validate(task_run.cfg), Path(task_run.cfg["data"]["path"]).parent / "other", quiet=True)


# -- losses and weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("classification", {"train__loss": "focal", "train__class_weight": "balanced"}),
        ("targets", {"train__loss": "mae"}),
        *exhaustive(
            [
                ("classification", {"train__class_weight": {"low": 3}}),
                ("multilabel", {"train__loss": "focal", "train__focal_gamma": 0.5}),
                ("regression", {"train__loss": "huber"}),
            ]
        ),
    ],
)
def test_every_loss_trains(task: str, changes: dict[str, Any], task_run: Any) -> None:
    found, plain = task_run(task, **changes), task_run(task)
    assert found["metrics"][found["metric"]] > 0.2 + found["baseline"][found["metric"]]
    assert found["history"]["loss"] != plain["history"]["loss"]


def test_weights_change_the_training_and_no_metric(task_run: Any, arrays: dict[str, Any]) -> None:
    split = np.array(["train", "train", "train", "test", "validation"] * 12)
    names = np.array(["low", "mid", "top"])
    weight = (np.arange(60) % 2).astype(float)
    other = np.where((weight == 0) & (split == "train"), (arrays["label"] + 1) % 3, arrays["label"])
    found = [
        task_run("classification", {"split": split, "label": names[label], **weights})
        for label, weights in ((arrays["label"], {"weight": weight}), (other, {"weight": weight}), (other, {}))
    ]
    same = ("history", "metrics", "validation", "confusion")
    assert [found[1][key] for key in same] == [found[0][key] for key in same]  # Rows of weight 0 teach nothing.
    assert found[2]["history"]["loss"] != found[1]["history"]["loss"]
    assert np.sum(found[0]["confusion"]) == 12  # All rows of the test part count, whatever their weight.
    assert found[0]["data"]["views"] == ["a", "b"]


def test_rows_of_weight_zero_change_nothing(task_run: Any, npz: Write, arrays: dict[str, Any], tmp_path: Path) -> None:
    label, split = labelled(arrays, "regression"), np.where(np.arange(60) % 5 == 0, "test", "train")
    weight = np.where((np.arange(60) % 7 == 0) & (split == "train"), 0.0, 1.0)
    wild = {name: np.where(weight[:, None] > 0, arrays[name], 1e6) for name in "ab"}
    kept = {name: array[weight > 0] for name, array in {"label": label, "split": split, **wild}.items()}
    found = []
    for given in ({"label": np.where(weight > 0, label, 1e9), "split": split, "weight": weight, **wild}, kept):
        npz(**given)
        record = task_run("regression", given, data__missing="nan")
        found.append((record["metrics"], fusionkit.load(tmp_path / "run").state_dict()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][name], tensor) for name, tensor in found[1][1].items())


# -- parts -------------------------------------------------------------------------------------------------------------


def test_the_validation_part_is_measured_by_the_model_that_is_kept(
    task_run: Any, tmp_path: Path, arrays: dict[str, Any]
) -> None:
    found = task_run(
        "regression", data__validation_size=0.25, metric="rmse", train__lr=1.0, train__scheduler="constant"
    )
    scores = found["history"]["validation_rmse"]
    assert found["best_epoch"] == 1 + int(np.argmin(scores)) < 40
    assert found["validation"]["rmse"] == pytest.approx(min(scores), rel=1e-5)
    rows = parts_of(task_run.cfg).validation
    predicted = fusionkit.load(tmp_path / "run").predict([arrays["a"][rows], arrays["b"][rows]])
    wanted = reference.root_mean_squared_error(labelled(arrays, "regression")[rows], predicted)
    assert found["validation"]["rmse"] == pytest.approx(wanted, rel=1e-6)


def test_without_a_validation_part_the_test_part_is_shown_and_chooses_nothing(task_run: Any) -> None:
    found = task_run("regression", train__lr=1.0, train__scheduler="constant")
    assert (found["validation"], found["best_epoch"]) == (None, 40)
    assert list(found["history"]) == ["loss", "r2", "lr"]
    assert found["history"]["r2"][-1] == pytest.approx(found["metrics"]["r2"], rel=1e-5)


def test_patience_ends_a_run_early(task_run: Any) -> None:
    found = task_run("classification", data__validation_size=0.25, train__patience=2)
    assert len(found["history"]["loss"]) == found["best_epoch"] + 2 < 40


def test_a_refit_is_a_training_on_both_parts_for_the_best_number_of_epochs(
    task_run: Any, tmp_path: Path, npz: Write, arrays: dict[str, Any]
) -> None:
    options = {"data__validation_size": 0.25, "train__patience": 3}
    plain = task_run("classification", **options)
    found = task_run("classification", **options, train__refit=True)
    same = ("best_epoch", "history", "validation", "baseline")
    assert [found[key] for key in same] == [plain[key] for key in same]
    model, parts = fusionkit.load(tmp_path / "run"), parts_of(task_run.cfg)
    both = np.concatenate([parts.training, parts.validation])
    np.testing.assert_allclose(model.scaler.get_buffer("mean_0"), arrays["a"][both].mean(0))
    # The same by hand: the schedule is that of all epochs.
    config = validate(task_run.cfg)
    data = load_data(config.tree["data"], None, "auto")
    by_hand = _by_hand(config, data, both, found["best_epoch"])
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, by_hand[key]), key


def _by_hand(config: Any, data: Any, rows: Any, epochs: int) -> dict[str, torch.Tensor]:
    from fusionkit.experiment.parts import Part
    from fusionkit.experiment.training import Training, seeded, train

    with seeded(config.seed, torch.device("cpu")):
        model = run.build_model(config, data)
    model.scaler.fit([view[rows] for view in data.views.values()])
    views = model.scaler([view[rows] for view in data.views.values()])
    part = Part([view for view in views if view is not None], torch.from_numpy(data.target[rows]))
    train(
        model.network,
        Training(model.task, part, data.target[rows], None, config.train, config.seed, stop=epochs),
        "cpu",
    )
    return model.state_dict()


def test_a_refit_reports_its_second_half(task_run: Any, tmp_path: Path) -> None:
    task_run("classification", data__validation_size=0.25, train__refit=True, train__epochs=4)
    done: list[float] = []
    found = run.run_job(validate(task_run.cfg), tmp_path / "again", quiet=True, report=done.append)
    first, second = done[:4], done[4:]
    assert first == [0.125, 0.25, 0.375, 0.5]
    assert second == [0.5 + 0.5 * (i + 1) / found["best_epoch"] for i in range(found["best_epoch"])]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_all_rows_may_train(task: str, task_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = task_run(task, data__test_size=0, quiet=False)
    assert (found["metrics"], found["baseline"], found["validation"], found["confusion"]) == ({}, {}, None, None)
    assert (found["data"]["training_rows"], found["data"]["test_rows"], found["robustness"]) == (60, 0, None)
    assert list(found["history"]) == ["loss", "lr"]
    shown = capsys.readouterr()
    assert (
        "metrics     none, because all rows train (data.test_size=0); the run is not ranked" in shown.out.splitlines()
    )
    assert len(fusionkit.load(tmp_path / "run").predict([np.zeros((2, 4)), np.zeros((2, 3))])) == 2


def test_all_rows_but_the_validation_part_may_train(task_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = task_run("classification", data__test_size=0, data__validation_size=0.2, train__refit=True, quiet=False)
    assert (found["metrics"], found["validation"]["accuracy"] > 0.9) == ({}, True)
    shown = capsys.readouterr()
    assert "again with the validation part for" in shown.err
    assert "metrics     none, because no row is test (data.test_size=0)" in shown.out.splitlines()


def test_the_rows_of_each_part_are_kept(task_run: Any, tmp_path: Path) -> None:
    ids = np.array([f"{i:03}" for i in range(60)])
    task_run("classification", {"id": ids}, data__validation_size=0.25)
    parts = parts_of(task_run.cfg)
    with np.load(tmp_path / "run" / results.ROWS, allow_pickle=False) as kept:
        assert sorted(kept) == ["test", "test_id", "training", "training_id", "validation", "validation_id"]
        for name, rows in parts.named().items():
            np.testing.assert_array_equal(kept[name], rows)
            assert kept[f"{name}_id"].tolist() == ids[rows].tolist()


def test_the_rows_of_a_test_file_are_counted_in_that_file(
    task_run: Any, npz: Write, arrays: dict[str, Any], tmp_path: Path
) -> None:
    test = tmp_path / "test.npz"
    np.savez(test, **{**{key: arrays[key][:9] for key in ("a", "b")}, "label": labelled(arrays, "classification")[:9]})
    found = task_run("classification", data__test_path=str(test), data__validation_size=0.25)
    assert (found["data"]["training_rows"], found["data"]["test_rows"]) == (45, 9)
    with np.load(tmp_path / "run" / results.ROWS, allow_pickle=False) as kept:
        assert sorted(kept) == ["test", "training", "validation"]
        assert kept["test"].tolist() == list(range(9))
        assert sorted([*kept["training"], *kept["validation"]]) == list(range(60))


# -- robustness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", exhaustive_unless(lambda task: task in ("classification", "targets"), TASKS))
def test_robustness_is_that_of_the_first_metric(task: str, task_run: Any) -> None:
    found = task_run(task, metric="log_loss" if task in ("binary", "multilabel") else None)
    assert set(found["robustness"]) == {"missing", "only", "missing_rate", "noisy", "noise"}
    values = [value for part in found["robustness"].values() for value in part.values()]
    assert all(value is None or value <= 1 for value in values)
    first = next(iter(found["metrics"]))
    assert found["robustness"]["noise"]["2"] < found["metrics"][first]


# -- what is shown -----------------------------------------------------------------------------------------------------


def shown(text: str) -> dict[str, list[str]]:
    """Return the lines of a summary by their first word."""
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith(" "):
            word, _, rest = line.partition(" ")
            lines.setdefault(word.rstrip(":"), []).append(rest.strip())
    return lines


def test_the_summary_has_the_metric_beside_its_baseline_and_the_command_to_predict(
    task_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = task_run("regression", data__validation_size=0.25, quiet=False)
    captured = capsys.readouterr()
    out, err = shown(captured.out), shown(captured.err)
    best = f"{found['validation']['r2']:.4f} on 12 validation rows, best in epoch {found['best_epoch']}"
    base = f"{found['metrics']['r2']:.4f} on 12 test rows (mean of training: {found['baseline']['r2']:.4f})"
    assert out["r2"] == [best, base]
    assert out["predict"] == ["fusionkit predict run data.path=NEW --out predictions.csv"]
    assert err["task"][0].startswith("regression")
    assert "numbers with fractions: amounts; classes? task=classification" in err["task"][0]
    assert err["rows"] == ["36 training, 12 validation, 12 test"]
    assert "warning" not in out


def test_balanced_accuracy_stands_beside_the_accuracy_of_uneven_classes(
    task_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    task_run("classification", quiet=False)
    captured = capsys.readouterr()
    assert "balanced_accuracy" not in shown(captured.out)
    uneven = {"label": np.array(["no"] * 50 + ["yes"] * 10)}  # More than 1.5 times its half.
    found = task_run("binary", uneven, quiet=False, train__lr=1e-9)
    captured = capsys.readouterr()
    assert "positive: 'yes'" in captured.err
    out = shown(captured.out)
    value, base = found["metrics"]["balanced_accuracy"], found["baseline"]["balanced_accuracy"]
    assert out["balanced_accuracy"] == [f"{value:.4f} on 12 test rows (largest class: {base:.4f})"]
    assert base == 0.5


def test_the_positive_class_of_two_stands_beside_its_metric(task_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = task_run("binary", metric="roc_auc", train__epochs=1, quiet=False)
    line = f"{found['metrics']['roc_auc']:.4f} on 12 test rows (largest class: 0.5000; positive: 'yes')"
    assert shown(capsys.readouterr().out)["roc_auc"] == [line]


def test_errors_of_several_targets_are_in_standard_deviations(
    task_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    task_run("targets", quiet=False, data__validation_size=0.25, train__refit=True)
    out = capsys.readouterr().out
    assert re.search(r"^rmse +0\.\d+ standard deviations on 12 validation rows$", out, re.MULTILINE)
    assert re.search(r"^r2 +\S+ on 12 validation rows, best in epoch \d+, before the refit$", out, re.MULTILINE)
    assert re.search(r"^mae +0\.\d+ standard deviations on 12 test rows", out, re.MULTILINE)


def test_labels_that_a_part_lacks_are_named(
    task_run: Any, arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.stack([arrays["label"] > 0, np.arange(60) == 59], 1)
    split = np.where(np.arange(60) < 20, "test", "train")
    task_run("multilabel", {"label": label, "split": split}, quiet=False)
    err = capsys.readouterr().err
    assert "note: The test part has no row with '1': average_precision and roc_auc are undefined there." in err
    assert err.count("has no row with") == 1


def test_a_small_unit_is_shown_with_its_digits(task_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = task_run("targets", metric="rmse_1", train__epochs=1, quiet=False)
    (line,) = shown(capsys.readouterr().out)["rmse_1"]
    assert float(line.split()[0]) == pytest.approx(found["metrics"]["rmse_1"], rel=1e-2)
    assert 0 < found["metrics"]["rmse_1"] < 1e-8


def test_a_warning_where_the_model_is_not_better_than_its_baseline(
    task_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = task_run("regression", metric="rmse", train__lr=1e-9, train__epochs=1, quiet=False)
    assert found["metrics"]["rmse"] >= found["baseline"]["rmse"]
    (line,) = shown(capsys.readouterr().out)["warning"]
    assert line.startswith("the rmse is not better than that of the baseline: ")


def test_a_metric_that_the_validation_part_does_not_define_keeps_the_last_epoch(
    task_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    split = np.array(["test", "train", "train", "train", "dev"] * 12)
    split[(np.arange(60) % 3 == 1) & (split == "dev")] = "train"  # Class "yes" is in no row of the validation part.
    found = task_run("binary", {"split": split}, metric="roc_auc", train__patience=2, quiet=False)
    assert (found["validation"]["roc_auc"], found["best_epoch"], len(found["history"]["loss"])) == (None, 40, 40)
    line = f"undefined on {found['data']['validation_rows']} validation rows, so the last epoch is kept"
    assert shown(capsys.readouterr().out)["roc_auc"][0] == line


# -- missing views -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_views_may_be_absent_for_every_task(task: str, task_run: Any, arrays: dict[str, Any], tmp_path: Path) -> None:
    views = {"a": arrays["a"].copy(), "b": arrays["b"].astype(float)}
    views["a"][:10] = np.nan
    views["b"][8:20] = np.nan
    found = task_run(task, views, data__validation_size=0.25, train__view_dropout=0.2)
    assert found["data"]["missing"] == {"a": 10, "b": 12}
    assert found["metrics"][found["metric"]] > found["baseline"][found["metric"]]
    assert np.isfinite(fusionkit.load(tmp_path / "run").predict(list(views.values()))).all()


# -- precision ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "precision", "options"),
    [
        ("regression", "64-true", {"train__loss": "huber"}),
        ("multilabel", "bf16-true", {"train__loss": "focal", "train__class_weight": "balanced"}),
        ("binary", "64-true", {"train__class_weight": {"yes": 3}}),
        *exhaustive([("targets", "bf16-mixed", {}), ("binary", "bf16-mixed", {"train__loss": "focal"})]),
    ],
)
def test_tasks_train_in_every_precision(
    task: str, precision: str, options: dict[str, Any], task_run: Any, arrays: dict[str, Any], tmp_path: Path
) -> None:
    weight = np.linspace(0.5, 2, 60)
    found = task_run(task, {"weight": weight}, train__precision=precision, train__epochs=10, **options)
    assert found["metrics"][found["metric"]] > found["baseline"][found["metric"]]
    predicted = np.array(fusionkit.load(tmp_path / "run").predict([arrays["a"], arrays["b"]]))
    if task == "regression":  # The numbers of a model in double precision keep theirs.
        assert np.abs(predicted - labelled(arrays, task)).max() < 20


@pytest.mark.exhaustive
@pytest.mark.parametrize("task", exhaustive_unless(lambda task: task in ("classification", "targets"), TASKS))
def test_two_devices_train_every_task(task: str, task_run: Any) -> None:
    options = {"data__validation_size": 0.25, "train__patience": 3, "train__refit": True, "train__batch_size": 16}
    found, alone = task_run(task, train__devices=2, **options), task_run(task, **options)
    assert found["best_epoch"] == alone["best_epoch"]
    assert found["history"]["loss"] == pytest.approx(alone["history"]["loss"], rel=1e-3)


# -- late fusion, and weights of the views -----------------------------------------------------------------------------


def of_operator(cfg: dict[str, Any], name: str, **model: Any) -> dict[str, Any]:
    """Return the config with an operator without options of its own, behind encoders."""
    node = {key: cfg["fusion"][key] for key in ("_target_", "_recursive_", "_convert_", "dims")}
    return {**cfg, "fusion": {**node, "name": name}, "model": {"head": "linear", "encoder": "linear", **model}}


@pytest.mark.parametrize("task", exhaustive_unless(lambda task: task in ("classification", "targets"), TASKS))
@pytest.mark.parametrize("free", [False, True], ids=["average", "concatenation"])
def test_late_fusion(task: str, free: bool, config: Config, npz: Write, arrays: dict[str, Any], tmp_path: Path) -> None:
    npz(label=labelled(arrays, task))
    changes = {"train__epochs": 40, "train__batch_size": 4, "train__input_dropout": 0.0, "task": "auto"}
    cfg = config(**changes, model__head="none", model__encoder="linear", model__activation="relu")
    cfg = cfg if free else of_operator(cfg, "average", head="none", activation="relu")
    found = run_job(cfg, tmp_path / "run", quiet=True)
    outputs = len(found["classes"] or found["targets"])
    assert (found["n"], found["dims"]) == (outputs, [outputs, outputs])
    assert found["l"] == (2 * outputs**2 if free else 0)
    assert found["parameters"] == found["l"] + (4 + 1 + 3 + 1) * outputs
    assert found["metrics"][found["metric"]] > 0.2 + found["baseline"][found["metric"]]
    assert found["config"] == cfg
    model, rows = fusionkit.load(tmp_path / "run"), parts_of(cfg).test
    output = model.evaluate([arrays["a"][rows], arrays["b"][rows]])
    measured = model.task.measure(model.task.predicted(output), load_data(cfg["data"], None, "auto").target[rows])
    assert measured.keys() == found["metrics"].keys()
    for name, value in measured.items():  # Some are undefined.
        assert found["metrics"][name] == (None if value is None else pytest.approx(value, rel=1e-5, abs=1e-6))


def test_a_job_whose_fusion_has_another_width_than_the_outputs_is_recorded(tmp_path: Path, config: Config) -> None:
    cfg = config(model__head="none", fusion__n=7)
    message = run_recorded(cfg, tmp_path / "run", quiet=True)["error"]
    assert re.search(like("The output of 'parameterized_concatenation' should have the width 3, … found 7."), message)


@pytest.mark.parametrize("task", exhaustive_unless(lambda task: task in ("multilabel", "regression"), TASKS))
def test_the_weights_of_the_views(
    task: str, config: Config, npz: Write, arrays: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = {"a": arrays["a"].copy(), "b": arrays["b"].astype(float)}
    views["a"][::7] = np.nan
    label = labelled(arrays, task)
    npz(label=label, **views)
    cfg = of_operator(config(task="auto", train__view_dropout=0.2, model__activation="tanh"), "balanced")
    with explaining():
        found = run_job(cfg, tmp_path / "run")
        model = fusionkit.load(tmp_path / "run")
    rows = parts_of(cfg).test
    mask = torch.from_numpy(np.stack([~np.isnan(view[rows]).any(1) for view in views.values()], 1))
    given = [torch.from_numpy(np.nan_to_num(view[rows])) for view in views.values()]
    weights = model.network.explain(model.scaler(given), mask)["weights"].detach().double().numpy()
    if task in ("classification", "binary"):
        groups = {name: label[rows] == name for name in found["classes"]}
    elif task == "multilabel":
        groups = {"0": label[rows, 0], "1": label[rows, 1]}
    else:
        groups = {"all": np.ones(len(rows), bool)}
    assert not mask.all()
    assert found["weights"].keys() == groups.keys()
    for name, chosen in groups.items():
        for i, view in enumerate("ab"):
            there = chosen & mask[:, i].numpy()
            assert found["weights"][name][view] == pytest.approx(weights[there, i].mean())
    assert (tmp_path / "run" / results.WEIGHTS).read_bytes().startswith(b"\x89PNG")
    assert "weights.png" in capsys.readouterr().out.split()
    assert results.read_result(tmp_path / "run" / results.RESULT) == found


def test_only_weights_make_a_picture(config: Config, tmp_path: Path) -> None:
    with explaining():
        run_job(of_operator(config(), "says"), tmp_path / "run", quiet=True)
        assert (tmp_path / "run" / results.WEIGHTS).exists()
        found = run_job(config(data__test_size=0), tmp_path / "all", quiet=True)
    assert (tmp_path / "run" / results.WEIGHTS).exists()
    again = run_job(config(), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / results.WEIGHTS).exists()
    assert found["weights"] is again["weights"] is None
