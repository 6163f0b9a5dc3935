"""Runs on views that stay in their files, against runs on the same arrays in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import fusionkit
from fusionkit import registry
from fusionkit.cli import main
from fusionkit.config.options import validate
from fusionkit.errors import FusionError
from fusionkit.experiment import run, stream, trained
from fusionkit.experiment.data import Dataset
from fusionkit.experiment.robustness import robustness
from fusionkit.experiment.splits import Parts
from fusionkit.experiment.training import train
from tests.exhaustive import exhaustive_unless
from tests.experiment.explaining import explaining
from tests.experiment.stored_views import stored
from tests.experiment.test_run import First
from tests.experiment.test_run_tasks import labelled
from tests.messages import like
from tests.run_records import run_job

Config = Callable[..., dict[str, Any]]
Streamed = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks of 7 rows of 7 columns, 3 in a buffer."""
    monkeypatch.setattr(stream, "BLOCK", 200)
    monkeypatch.setattr(stream, "BUFFER", 600)


def on_disk(cfg: dict[str, Any], folder: Path, **views: npt.NDArray[Any]) -> tuple[Dataset, Parts]:
    """Return the data of a config with its views, or others, in files, and its parts."""
    data, parts = run.read(validate(cfg))
    given = views or data.views
    kept: dict[str, Any] = {name: stored(folder / f"{name}.bin", view) for name, view in given.items()}
    return replace(data, views=kept, mask=data.mask if cfg["data"].get("missing") == "mask" else None), parts


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """Return a function that runs a config in memory and streamed, in the folders ``memory`` and ``streamed``."""

    def run_both(cfg: dict[str, Any], **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        memory = run_job(cfg, tmp_path / "memory", quiet=True, **options)
        given = on_disk(cfg, tmp_path)
        return memory, run_job(cfg, tmp_path / "streamed", quiet=True, given=given, **options)

    return run_both


def close(found: Any, wanted: Any) -> None:
    """Compare numbers in dicts and lists up to rounding errors, and everything else exactly."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            close(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            close(one, other)
    else:
        assert found == (pytest.approx(wanted, rel=1e-4, abs=1e-5) if isinstance(wanted, float) else wanted)


def absent(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the views with rows of NaN, two rows without any view."""
    views = {"a": arrays["a"].copy(), "b": arrays["b"].astype(float)}
    views["a"][:22] = np.nan
    views["b"][20:32] = np.nan
    return views


def some_nan(arrays: dict[str, Any]) -> dict[str, Any]:
    views = absent(arrays)
    views["b"][40:45, 1] = np.nan
    return views


def junk(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return views with a mask, and anything in absent rows."""
    views = absent(arrays)
    mask = np.stack([~np.isnan(view).all(1) for view in views.values()], 1)
    return {**{name: np.where(np.isnan(view), 1e9, view) for name, view in views.items()}, "mask": mask}


LATE = {"head": "none", "encoder": "linear", "encoder_width": 3}
WEIGHT = {"weight": np.arange(60) % 3 / 2.0}  # A third of the rows has none.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({}, {}),
    "weight": (WEIGHT, {}),
    "nan": ({"views": absent}, {"train__view_dropout": 0.3, "model__encoder": "mlp"}),
    "mask": ({"views": junk}, {"data__missing": "mask"}),
    "impute": ({"views": some_nan}, {"data__impute": "mean"}),
    "view_dropout": ({}, {"train__view_dropout": 0.5}),
    "one view": ({"b": None}, {"dims": [4], "data__dims": [4], "fusion__dims": [4]}),
    "split": ({"split": np.array(["train", "test", "validation"] * 20)[np.random.default_rng(1).permutation(60)]}, {}),
    "folds": ({"folds": np.arange(60) % 7}, {"data__fold": 3}),
    "group": ({"group": np.arange(60) // 4}, {}),
    "validation": ({}, {"data__validation_size": 0.2, "train__patience": 3}),
    "refit": ({}, {"data__validation_size": 0.2, "train__refit": True}),
    "no test part": ({}, {"data__test_size": 0}),
    "bf16": ({}, {"train__precision": "bf16-mixed"}),
    "late fusion": (
        {},
        {"fusion__name": "average", "model": {"head": "none", "encoder": "linear", "encoder_width": 3}},
    ),
    **{task: ({"label": task}, {"task": "auto"}) for task in ("binary", "multilabel", "regression", "targets")},
}


def case(name: str, config: Config, npz: Any, arrays: Any, **changes: Any) -> dict[str, Any]:
    given, options = CASES[name]
    given = dict(given)
    given |= given.pop("views", dict)(arrays) if callable(given.get("views")) else {}
    if isinstance(given.get("label"), str):
        given["label"] = labelled(arrays, given["label"])
    npz(**given)
    cfg = config(**{**options, **changes})
    if name == "late fusion":
        cfg["n"] = 3
        cfg["fusion"] = {key: cfg["fusion"][key] for key in ("_target_", "_recursive_", "_convert_", "name")}
    return cfg


@pytest.mark.parametrize("name", CASES)
def test_what_is_measured_is_what_is_measured_in_memory(
    config: Config, npz: Any, arrays: Any, both: Any, name: str
) -> None:
    # Steps so small that the order of the rows does not show.
    memory, streamed = both(case(name, config, npz, arrays, train__epochs=1, train__lr=1e-12), record_only=True)
    left_out = {"seconds", "provenance", "history"}
    close(
        {key: streamed[key] for key in streamed.keys() - left_out},
        {key: memory[key] for key in memory.keys() - left_out},
    )
    assert streamed["history"].keys() == memory["history"].keys()


@pytest.mark.parametrize("name", ["default", "nan", "impute", "refit", "multilabel", "regression"])
def test_it_learns_as_in_memory(config: Config, npz: Any, arrays: Any, both: Any, name: str) -> None:
    cfg = case(name, config, npz, arrays, train__epochs=30, train__batch_size=4, train__input_dropout=0.0)
    memory, streamed = both(cfg, record_only=True)
    assert streamed["history"]["loss"][-1] < streamed["history"]["loss"][0]
    metric = memory["metric"]
    assert streamed["metrics"][metric] == pytest.approx(memory["metrics"][metric], abs=0.15)


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name == "nan", ["default", "weight", "nan", "targets"]))
def test_two_processes_train_as_one(config: Config, npz: Any, arrays: Any, tmp_path: Path, name: str) -> None:
    cfg = case(name, config, npz, arrays, train__epochs=2)
    one = run_job(cfg, tmp_path / "one", quiet=True, given=on_disk(cfg, tmp_path))
    cfg["train"]["devices"] = 2
    two = run_job(cfg, tmp_path / "two", quiet=True, given=on_disk(cfg, tmp_path))
    np.testing.assert_allclose(two["history"]["loss"], one["history"]["loss"], rtol=1e-4)
    close(two["metrics"], one["metrics"])


def test_a_run_writes_the_model_whose_numbers_it_recorded(config: Config, tmp_path: Path, arrays: Any) -> None:
    cfg = config(train__epochs=8)
    found = run_job(cfg, tmp_path / "run", given=on_disk(cfg, tmp_path))
    model, rows = fusionkit.load(tmp_path / "run"), np.load(tmp_path / "run" / "rows.npz")
    test = rows["test"]
    predicted = np.array(model.predict([arrays["a"][test], arrays["b"][test]]))
    assert found["metrics"]["accuracy"] == pytest.approx(np.mean(predicted == arrays["label"][test]))
    training = arrays["b"][rows["training"]].astype(float)
    np.testing.assert_allclose(model.scaler.get_buffer("mean_1"), training.mean(0), rtol=1e-12)
    np.testing.assert_allclose(model.scaler.get_buffer("scale_1"), training.std(0), rtol=1e-12)
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_bits(config: Config, tmp_path: Path) -> None:
    cfg = config(train__epochs=3)
    first, second = (run_job(cfg, tmp_path / name, quiet=True, given=on_disk(cfg, tmp_path)) for name in "ab")
    same = "metrics", "history", "robustness", "confusion"
    assert [first[key] for key in same] == [second[key] for key in same]


@pytest.mark.parametrize(("block", "buffer"), [(1, 1), (1, 10**6), (10**6, 10**6)])
def test_one_row_in_a_block_and_one_block(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, buffer: int
) -> None:
    monkeypatch.setattr(stream, "BLOCK", block)
    monkeypatch.setattr(stream, "BUFFER", buffer)
    cfg = config(train__epochs=8)
    assert run_job(cfg, tmp_path, quiet=True, given=on_disk(cfg, tmp_path))["metrics"]["accuracy"] > 0.9


def test_a_file_that_is_sorted_by_class(config: Config, npz: Any, arrays: Any, tmp_path: Path) -> None:
    order = np.argsort(arrays["label"], kind="stable")
    npz(**{name: array[order] for name, array in arrays.items()})
    cfg = config(train__epochs=20)
    assert run_job(cfg, tmp_path, quiet=True, given=on_disk(cfg, tmp_path))["metrics"]["accuracy"] > 0.9


def test_weights_of_the_views(config: Config, npz: Any, arrays: Any, both: Any) -> None:
    npz(**absent(arrays))
    cfg = config(train__epochs=1, train__lr=1e-12, model__encoder="linear", fusion__name="says")
    del cfg["fusion"]["parameter_fabrication"]
    with explaining():
        memory, streamed = both(cfg)
    assert streamed["weights"] is not None
    close(streamed["weights"], memory["weights"])


def test_an_operator_that_refuses_masks(config: Config, npz: Any, arrays: Any, tmp_path: Path) -> None:
    npz(**absent(arrays))
    cfg = config(fusion__name="first", model__encoder="linear")
    cfg["fusion"] = {key: cfg["fusion"][key] for key in ("_target_", "_recursive_", "_convert_", "name", "dims")}
    plugin = SimpleNamespace(__name__="refusing")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"first": First})
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    with registry.isolated(plugin):
        given = on_disk(cfg, tmp_path)
        assert given[0].mask is None
        with pytest.raises(FusionError, match=like("The fusion 'first' … because rows of views.npz lack a view; …")):
            run_job(cfg, tmp_path / "run", quiet=True, given=given)


def test_a_folder_above_the_memory_is_streamed(tmp_path: Path, arrays: Any, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "arrays").mkdir()
    for name, array in {**arrays, **absent(arrays)}.items():
        np.save(tmp_path / "arrays" / f"{name}.npy", array)
    options = [f"data.path={tmp_path / 'arrays'}", "train.epochs=2", "train.lr=1e-12", "n=5"]
    found = []
    for memory in ("1.0", "0.000001"):
        main(["run", "data=folder", *options, f"data.memory_gb={memory}", f"hydra.run.dir={tmp_path / memory}"])
        shown = capfd.readouterr()
        assert ("streamed" in shown.err) == (memory != "1.0")
        assert "missing     34 of 120 views (a in 22, b in 12 of 60 rows); 2 rows without any view" in shown.out
        found.append(json.loads((tmp_path / memory / "result.json").read_text()))
    for key in ("metrics", "confusion", "robustness", "data", "baseline"):
        close(found[1][key], found[0][key])


# -- what is measured on some rows -------------------------------------------------------------------------------------


def test_curve_robustness_and_weights_are_of_some_rows_and_the_metrics_of_all(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SHOWN", 5)
    monkeypatch.setattr(trained, "_DISTURBED", 4)
    disturbed: list[Any] = []
    shown: list[Any] = []

    def noted(score: Any, views: Any, **how: Any) -> Any:
        disturbed.append(views)
        return robustness(score, views, **how)

    def trains(network: Any, training: Any, device: Any) -> Any:
        shown.append(training.monitored)
        return train(network, training, device)

    monkeypatch.setattr(trained, "robustness", noted)
    monkeypatch.setattr(run, "train", trains)
    cfg = config(train__epochs=2)
    found = run_job(cfg, tmp_path, quiet=True, given=on_disk(cfg, tmp_path))
    assert [len(view) for view in disturbed[0].values()] == [4, 4]
    assert len(shown[0].part) == len(shown[0].target) == 5
    assert np.sum(found["confusion"]) == 12
    assert {round(5 * score, 6) for score in found["history"]["accuracy"]} <= {*range(6)}


def test_rows_of_the_test_part_without_any_view(
    config: Config, npz: Any, arrays: Any, tmp_path: Path, both: Any
) -> None:
    views = absent(arrays)
    cfg = config(train__epochs=1)
    test = run.read(validate(cfg))[1].test
    for view in views.values():
        view[test] = np.nan
    npz(**views)
    messages = []
    for given in (None, on_disk(cfg, tmp_path)):
        with pytest.raises(FusionError, match="At least one row should have a view; found none") as error:
            run_job(cfg, tmp_path / "run", quiet=True, given=given)
        messages.append(str(error.value))
    assert all("after epoch 1" in message for message in messages)


def test_a_file_that_changes_is_found(config: Config, tmp_path: Path) -> None:
    cfg = config()
    given = on_disk(cfg, tmp_path)
    (tmp_path / "b.bin").write_bytes(b"")
    with pytest.raises(FusionError, match="should not change while it is read"):
        run_job(cfg, tmp_path / "run", quiet=True, given=given)
    assert torch.get_num_threads() >= 1
