from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fusionkit import cli, registry
from mlflow import MlflowClient

from fusionkit_mlflow import plugin
from fusionkit_mlflow.tracker import log

RECORD: dict[str, Any] = {
    "schema_version": 1,
    "status": "completed",
    "error": None,
    "fusion": "average",
    "fabrication": None,
    "l": 0,
    "n": 4,
    "parameters": 15,
    "seed": 3,
    "seconds": 2.5,
    "metrics": {"accuracy": 0.75, "log_loss": None},
    "validation": {"accuracy": 0.5, "log_loss": None},
    "robustness": {"missing": {"left (5 %)": 0.5}},
    "history": {"loss": [1.0, 0.5, 0.25], "accuracy": [0.5, None, 0.75]},
    "config_hash": "0123456789abcdef",
    "config": {
        "seed": 3,
        "fusion": {"name": "average", "preprocess": None},
        "dims": [4, 4],
        "data": {"path": "x" * 9999},
    },
    "provenance": {"versions": {"fusionkit": "0.1.0"}, "python": "3.11", "git": {"commit": "abc", "dirty": False}},
}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def client() -> Any:
    return MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")


def runs(name: str = "fusionkit") -> list[Any]:
    found = client()
    return list(found.search_runs([found.get_experiment_by_name(name).experiment_id]))


def test_a_record_is_all_there(tmp_path: Path) -> None:
    run = client().get_run(log(RECORD))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "average, seed 3"
    assert run.info.end_time - run.info.start_time == 2500
    assert run.data.metrics == {
        "accuracy": 0.75,
        "validation.accuracy": 0.5,
        "l": 0.0,
        "n": 4.0,
        "parameters": 15.0,
        "seconds": 2.5,
        "robustness.missing.left _5 __": 0.5,
        "history/loss": 0.25,
        "history/accuracy": 0.75,
    }
    assert run.data.params["fusion.name"] == "average"
    assert run.data.params["fusion.preprocess"] == "None"
    assert run.data.params["dims"] == "[4, 4]"
    assert run.data.params["data.path"] == "x" * 5000
    tags = run.data.tags
    assert tags["fusionkit.config_hash"] == "0123456789abcdef"
    assert tags["mlflow.source.git.commit"] == "abc"
    assert tags["fusionkit.version.fusionkit"] == "0.1.0"
    assert "fusionkit.error" not in tags
    curve = client().get_metric_history(run.info.run_id, "history/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert [file.path for file in client().list_artifacts(run.info.run_id)] == ["result.json"]
    kept = client().download_artifacts(run.info.run_id, "result.json", str(tmp_path))
    assert json.loads(Path(kept).read_text()) == RECORD


def test_a_failed_run_is_logged_as_such() -> None:
    failed = {**copy.deepcopy(RECORD), "status": "failed", "error": "The loss should be finite.", "metrics": {}}
    run = client().get_run(log({**failed, "history": None, "robustness": None, "provenance": None, "seconds": None}))
    assert run.info.status == "FAILED"
    assert run.data.tags["fusionkit.error"] == "The loss should be finite."


def test_a_long_run_takes_several_batches() -> None:
    history = {"loss": [float(epoch) for epoch in range(1234)]}
    run = log({**RECORD, "history": history})
    assert len(client().get_metric_history(run, "history/loss")) == 1234


def test_the_variables_of_mlflow_say_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    run = log(RECORD)
    assert not Path("mlflow.db").exists()
    other: Any = MlflowClient(f"sqlite:///{tmp_path / 'other.db'}")
    assert other.get_experiment_by_name("mine").experiment_id == other.get_run(run).info.experiment_id


def test_two_processes_may_create_the_database_at_once() -> None:
    program = f"from fusionkit_mlflow.tracker import log\nlog({RECORD!r})"
    both = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert len(runs()) == 2


def test_fusionkit_finds_the_plugin_and_logs_completed_and_failed_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    label = np.arange(60) % 3
    views = {"a": np.eye(3)[label] + 0.1 * generator.standard_normal((60, 3)), "b": np.eye(3)[label]}
    np.savez("views.npz", label=label, **views)  # type: ignore[arg-type]
    argv = ["run", "data=npz", "data.path=views.npz", "train.epochs=2", "n=4"]
    with registry.isolated(plugin):
        assert cli.main([*argv, "hydra.run.dir=good"]) == 0
        assert cli.main([*argv, "hydra.run.dir=bad", "train.lr=1e38", "train.optimizer=sgd"]) == 1
    assert "tracker" not in capsys.readouterr().err
    found = {run.info.status: run for run in runs()}
    assert set(found) == {"FINISHED", "FAILED"}
    record = json.loads(Path("good/result.json").read_text())
    assert found["FINISHED"].data.metrics["accuracy"] == record["metrics"]["accuracy"]
    files = {file.path for file in client().list_artifacts(found["FINISHED"].info.run_id)}
    assert files == {"result.json", "model.safetensors", "rows.npz", "curve.png", "views.png"}
    assert "loss" in found["FAILED"].data.tags["fusionkit.error"]


def test_a_store_that_cannot_be_reached_costs_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://here")
    with registry.isolated(plugin), pytest.warns(RuntimeWarning, match="should process the finished run"):
        registry.run_finished(RECORD, tmp_path)


def test_listing_does_not_import_mlflow() -> None:
    program = "import sys, fusionkit_mlflow.plugin; print('mlflow' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "view", ["left//hand", "/left", "left/", "a/../b", "..", ".", "...", "a/./b", "x" * 300, "é/ü"]
)
def test_any_name_of_a_view(view: str) -> None:
    run = client().get_run(
        log({**RECORD, "robustness": {"missing": {view: 0.5}}, "config": {view: {view: 1}, "seed": 3}})
    )
    assert run.info.status == "FINISHED"
    assert 0.5 in run.data.metrics.values()
    assert {"1", "3"} == set(run.data.params.values())


@pytest.mark.parametrize(
    ("views", "names"),
    [
        (("left (1)", "left [1]"), {"left _1_", "left _1__2"}),
        (("é", "_", "ü"), {"_", "__2", "__3"}),
        (("a//b", "a__b"), {"a__b", "a__b_2"}),
    ],
)
def test_views_whose_names_become_equal_are_kept_apart(views: tuple[str, ...], names: set[str]) -> None:
    robustness = {"missing": {view: 0.5 + i / 8 for i, view in enumerate(views)}}
    run = client().get_run(log({**RECORD, "robustness": robustness, "config": dict.fromkeys(views, 1)}))
    assert run.info.status == "FINISHED"
    found = {name.removeprefix("robustness.missing."): value for name, value in run.data.metrics.items()}
    assert {name: value for name, value in found.items() if name in names}.keys() == names
    assert sorted(found[name] for name in names) == list(robustness["missing"].values())
    assert set(run.data.params) == names


def test_long_names_of_views_are_kept_apart() -> None:
    views = {"x" * 300 + end: value for end, value in (("a", 0.125), ("b", 0.375))}
    run = client().get_run(log({**RECORD, "robustness": views, "config": {}}))
    assert {0.125, 0.375} <= set(run.data.metrics.values())
    assert max(map(len, run.data.metrics)) == 250


def test_a_run_that_cannot_be_logged_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(MlflowClient, "log_batch", broken)
    with pytest.raises(OSError, match="no space"):
        log(RECORD)
    assert [run.info.status for run in runs()] == ["FAILED"]
