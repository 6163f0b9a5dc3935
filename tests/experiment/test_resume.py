"""Runs that are stopped and go on from a checkpoint end with the numbers of a run that was never stopped."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fusionkit import cli
from fusionkit.config import config_hash
from fusionkit.config.options import validate
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import results
from fusionkit.experiment.checkpoint import newest
from fusionkit.experiment.job import run_recorded
from fusionkit.experiment.resume import resume
from tests.exhaustive import exhaustive
from tests.experiment.explaining import explaining
from tests.experiment.mortal import VARIABLE, mortal
from tests.fake_distributions import Site
from tests.messages import like
from tests.run_records import run_job

Config = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _place(empty_directory: None) -> None:
    pass


@pytest.fixture(autouse=True)
def _operators() -> Iterator[None]:
    with mortal():
        yield


class Stopped(Exception):
    """Stops a run."""


class StopAt:
    """A report that stops the run when this part of it is done; a process of its own can be sent it."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction

    def __call__(self, fraction: float) -> None:
        if fraction >= self.fraction:
            raise Stopped


def of(cfg: dict[str, Any], name: str, **options: Any) -> dict[str, Any]:
    """Return the config with another operator."""
    return {**cfg, "fusion": {**cfg["fusion"], "name": name, **options}}


def every(cfg: dict[str, Any], epochs: int | None = 2) -> dict[str, Any]:
    """Return the config with checkpoints."""
    return {**cfg, "train": {**cfg["train"], "checkpoint_every": epochs}}


def stop(cfg: dict[str, Any], run_dir: Path, fraction: float) -> list[str]:
    """Start a run that is stopped, and return the names of its checkpoints."""
    found = run_recorded(cfg, run_dir, quiet=True, report=StopAt(fraction))
    assert found["status"] == "failed"
    assert "Stopped" in f"{found['error_type']} {found['error']}"
    return [path.name for path in results.checkpoints(run_dir)]


def state(run_dir: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the record without what the clock decides and without checkpoints, and the other files."""
    record = json.loads((run_dir / results.RESULT).read_text())
    record["config"]["train"].pop("checkpoint_every", None)
    record["provenance"] = record["seconds"] = None
    files = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file()}
    return record, {name: content for name, content in files.items() if name != results.RESULT}


def check(cfg: dict[str, Any], fraction: float, names: list[str] | None = None) -> None:
    """Compare a run without checkpoints with one that is stopped and goes on."""
    run_job(cfg, Path("whole"), quiet=True)
    found = stop(every(cfg), Path("run"), fraction)
    assert found if names is None else found == names
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    assert resume(Path("run")) == 0
    assert state(Path("run")) == state(Path("whole"))


# -- the same numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [
        *[("adamw", "onecycle"), ("sgd", "onecycle"), ("adam", "constant")],
        *exhaustive([("adamw", "constant"), ("sgd", "constant"), ("adam", "onecycle")]),
    ],
)
def test_every_optimizer_and_scheduler(optimizer: str, scheduler: str, config: Config) -> None:
    cfg = config(train__epochs=7, train__optimizer=optimizer, train__scheduler=scheduler, train__weight_decay=0.1)
    check(cfg, 5 / 7, ["checkpoint-000002.safetensors", "checkpoint-000004.safetensors"])


def test_an_operator_that_draws_numbers(config: Config) -> None:
    check(of(config(), "mortal"), 0.8)


def test_drawn_views_and_encoders(config: Config) -> None:
    check(config(train__view_dropout=0.4, model__encoder="mlp"), 0.6)


@pytest.mark.parametrize("precision", ["bf16-mixed", *exhaustive(["bf16-true", "64-true"])])
def test_other_precisions(precision: str, config: Config) -> None:
    check(config(train__precision=precision), 0.6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["mortal", "parameterized_concatenation"])
def test_several_processes(name: str, config: Config) -> None:
    # Of 15 rows one process has 8 and the other 7, so they do not draw the same.
    check(of(config(train__devices=2, train__batch_size=15, train__view_dropout=0.2), name), 0.6)


@pytest.mark.exhaustive
def test_batch_norm_in_several_processes(config: Config) -> None:
    norm = {"_target_": "torch.nn.BatchNorm1d", "num_features": "{view}"}
    cfg = config(train__devices=2, data__validation_size=0.25, fusion__preprocess=norm)
    check(cfg, 0.6)


@pytest.mark.parametrize("fraction", [0.45, 0.75, *exhaustive([0.1, 0.5])])
def test_a_refit_in_either_training(fraction: float, config: Config) -> None:
    cfg = config(train__epochs=10, data__validation_size=0.25, train__refit=True, train__lr=0.003)
    run_job(cfg, Path("known"), quiet=True)
    assert results.read_result(Path("known/result.json"))["best_epoch"] >= 4
    check(cfg, fraction)


def test_the_checkpoint_of_a_refit_is_newer_than_those_of_the_first_training(config: Config) -> None:
    cfg = every(config(train__epochs=10, data__validation_size=0.25, train__refit=True, train__lr=0.003))
    assert stop(cfg, Path("run"), 0.8) == ["checkpoint-000010.safetensors", "checkpoint-refit-000002.safetensors"]
    assert results.resumable_after(Path("run")) == "epoch 2 of the refit"
    assert stop(cfg, Path("run"), 0.4)[0] == "checkpoint-000006.safetensors"


@pytest.mark.parametrize("fraction", [0.3, *exhaustive([0.1, 0.5])])
def test_patience(fraction: float, config: Config, npz: Write, arrays: dict[str, Any]) -> None:
    label = np.random.default_rng(1).integers(0, 3, 60)  # Nothing can be learnt, so the training ends early.
    npz(label=label)
    cfg = config(train__epochs=20, data__validation_size=0.25, train__patience=4)
    run_job(cfg, Path("known"), quiet=True)
    known = results.read_result(Path("known/result.json"))
    assert known["best_epoch"] + 4 == len(known["history"]["loss"]) < 20
    check(cfg, min(fraction, len(known["history"]["loss"]) / 20))


def test_a_training_that_had_ended_is_not_trained_on(config: Config) -> None:
    cfg = config(train__epochs=4, data__validation_size=0.25)
    check(cfg, 1.0, ["checkpoint-000002.safetensors", "checkpoint-000004.safetensors"])


@pytest.mark.parametrize("name", ["average", "says", "balanced"])
def test_late_fusion_and_losses_of_the_fusion(name: str, config: Config) -> None:
    """Neither the parameters of the fusion nor the loss of the task need be there."""
    node = {key: config()["fusion"][key] for key in ("_target_", "_recursive_", "_convert_", "dims")}
    head = "none" if name == "average" else "linear"
    with explaining():
        cfg = config(model={"head": head, "encoder": "linear", "activation": "gelu"}, fusion={**node, "name": name})
        check(cfg, 0.6)


def test_nothing_to_train(config: Config, npz: Write, arrays: dict[str, Any]) -> None:
    npz(a=np.eye(3)[arrays["label"]], b=np.eye(3)[arrays["label"]])
    cfg = config(dims=[3, 3], data__dims=[3, 3], model__head="none")
    node = {key: cfg["fusion"][key] for key in ("_target_", "_recursive_", "_convert_")}
    check({**cfg, "fusion": {**node, "dims": [3, 3], "name": "average"}}, 0.6)


@pytest.mark.parametrize("batch_size", [16, *exhaustive([48])])
def test_a_regression(batch_size: int, config: Config, npz: Write, arrays: dict[str, Any]) -> None:
    npz(label=arrays["a"][:, 0] * 3.5, weight=np.linspace(0.5, 2, 60))
    check(config(task="auto", train__batch_size=batch_size), 0.6)


def test_a_run_may_be_stopped_twice(config: Config) -> None:
    cfg = config(train__epochs=8)
    run_job(cfg, Path("whole"), quiet=True)
    stop(every(cfg), Path("run"), 0.25)
    found, _ = newest(Path("run"))
    assert found is not None
    assert found.epoch == 2
    assert run_recorded(every(cfg), Path("run"), resume=True, quiet=True, report=StopAt(0.8))["status"] == "failed"
    assert [path.name for path in results.checkpoints(Path("run"))] == [
        "checkpoint-000004.safetensors",
        "checkpoint-000006.safetensors",
    ]
    resume(Path("run"))
    assert state(Path("run")) == state(Path("whole"))
    seconds = results.read_result(Path("run/result.json"))["seconds"]
    assert seconds > found.facts.seconds > 0  # Those of all its parts.


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(config: Config) -> Path:
    """Return the directory of a run that was stopped after epoch 4 of 5, with checkpoints of epochs 2 and 4."""
    stop(every(config()), Path("run"), 0.8)
    return Path("run")


def command(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    return (cli.main([*argv]), *capsys.readouterr())


def test_the_progress_goes_on_and_the_checkpoints_go(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = command(capsys, "run", "--resume", "run")
    assert status == 0, err
    assert "seed 0, after epoch 4, in run\nepoch 5/5  loss " in err
    assert "accuracy    " in out
    assert sorted(path.name for path in stopped.iterdir()) == [
        *("curve.png", "model.safetensors", "result.json", "rows.npz", "views.png")
    ]


def test_a_completed_run_is_left_alone(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run_dir.iterdir()}
    status, out, err = command(capsys, "run", "--resume", str(run_dir))
    assert (status, err) == (0, "")
    assert re.fullmatch(r".*run is completed: accuracy [\d.]+; nothing is left to do.\n", out)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run_dir.iterdir()} == before


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--resume", "gone"], "--resume should be the directory of a run; found no directory gone."),
        (["n=3", "--resume", "run"], "--resume should be given alone; found 'n=3'."),
        (["--resume", "run", "hydra.run.dir=x"], "--resume should be given alone; found 'hydra.run.dir=x'."),
        (["--resume", "run", "--from", "run"], "Only one of … --from and --resume should be given; found --from, --re"),
        (["--resume", "run", "-m"], "Only one of … found --multirun, --resume."),
        (
            ["--resume", "empty"],
            "empty should contain a checkpoint; found none. train.checkpoint_every=5 … the same command",
        ),
    ],
)
def test_a_command_that_cannot_be(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    status, _, err = command(capsys, "run", *argv)
    assert status != 0
    assert re.search(like(sentence).removeprefix("^"), err), err


def test_a_run_without_checkpoints_is_repeated_instead(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert stop(config(), Path("run"), 0.8) == []
    status, _, err = command(capsys, "run", "--resume", "run")
    assert status == 1
    assert "every 5 epochs; fusionkit run --from run runs it from the beginning." in err


def test_a_run_that_starts_afresh_removes_checkpoints(stopped: Path, config: Config) -> None:
    run_recorded(every(config()), stopped, quiet=True, report=StopAt(0.2))
    assert results.checkpoints(stopped) == []


def test_other_data(stopped: Path, npz: Write, arrays: dict[str, Any]) -> None:
    npz(a=arrays["a"] + 1)
    with pytest.raises(FusionError, match=like("The data of run should … digest … another content of views.npz")):
        resume(stopped)
    assert len(results.checkpoints(stopped)) == 2


def test_another_version_is_a_note(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in results.checkpoints(stopped):
        rewrite(path, versions={"torch": "2.0", "gone": "1"}, config_hash="0")
    status, _, err = command(capsys, "run", "--resume", "run")
    assert status == 0, err
    assert f"note: the checkpoint is of torch 2.0, and {version('torch')} is installed, so the numbers may" in err
    assert "note: the checkpoint is of gone 1, and none is installed" in err


def test_another_source_of_the_operator_is_a_note(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in results.checkpoints(stopped):
        rewrite(path, config_hash="0")
    assert (
        "note: the source of an operator has changed since the checkpoint, so"
        in command(capsys, "run", "--resume", "run")[2]
    )


def test_a_directory_is_used_by_one_run_at_a_time(stopped: Path) -> None:
    from fusionkit.experiment.job import directory_lock

    with directory_lock(stopped), pytest.raises(FusionError, match=like("The run directory … one run at a time")):
        resume(stopped)


def test_checkpoints_are_no_part_of_the_hash(config: Config) -> None:
    assert config_hash(every(config(), 3)) == config_hash(every(config(), None)) == config_hash(config())


# -- damaged and hostile files -----------------------------------------------------------------------------------------


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **facts: Any) -> None:
    """Write a checkpoint again, with another description."""
    from fusionkit.experiment.checkpoint import _digest

    tensors = load_file(path) if tensors is None else tensors
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        found = json.loads(file.metadata()["fusionkit"])
    save_file(tensors, path, {"fusionkit": json.dumps({**found, "digest": _digest(tensors), **facts})})


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[:-7])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "bit":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif how == "pickle":
        torch.save({}, path)
    else:
        save_file(load_file(path), path, {"fusionkit": how})


DAMAGES = ("cut", "empty", "bit", "pickle", "no JSON", "[]", "{}", "[" * 5000, '{"schema_version": 2}')


@pytest.mark.parametrize("how", [*DAMAGES[:1], *exhaustive(DAMAGES[1:])], ids=lambda how: how[:20])
def test_the_checkpoint_before_a_damaged_one_is_used(
    how: str, stopped: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run_job(config(), Path("whole"), quiet=True)
    damage(stopped / "checkpoint-000004.safetensors", how)
    status, _, err = command(capsys, "run", "--resume", "run")
    assert status == 0, err
    assert "checkpoint-000004.safetensors should " in err
    assert "The checkpoint of epoch 2 is used.\n" in err
    assert state(stopped) == state(Path("whole"))


@pytest.mark.parametrize("how", ["cut", "bit"])
def test_no_checkpoint_is_complete(how: str, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(stopped.iterdir())
    for path in results.checkpoints(stopped):
        damage(path, how)
    status, _, err = command(capsys, "run", "--resume", "run")
    assert status == 1
    assert err.count("\n") == 1
    assert "error: run should contain a complete checkpoint; found none: " in err
    assert "checkpoint-000004.safetensors should " in err
    assert sorted(stopped.iterdir()) == before


def changed(run_dir: Path, **change: Any) -> None:
    for path in results.checkpoints(run_dir):
        tensors = load_file(path)
        for name, value in change.pop("tensors", {}).items():
            tensors = {key: tensor for key, tensor in {**tensors, name: value}.items() if tensor is not None}
        rewrite(path, tensors, **change)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network.head.weight", None),
        ("network.head.weight", torch.zeros(3, 6)),
        ("best.more", torch.zeros(1)),
        ("optimizer.99.0", torch.zeros(1)),
        ("order", torch.zeros(5056, dtype=torch.uint8)),
        ("random.numpy", torch.full((1, 627), 625.0, dtype=torch.float64)),
        ("random.python", torch.full((1, 626), torch.nan, dtype=torch.float64)),
        *exhaustive(
            [
                ("network.head.weight", torch.zeros(3, 5, dtype=torch.float64)),
                ("network.more", torch.zeros(1)),
                ("other", torch.zeros(1)),
                ("optimizer.0.0", None),
                ("optimizer.0.7", torch.zeros(1)),
                ("order", torch.zeros(50, dtype=torch.uint8)),
                ("random.torch", torch.zeros((1, 5056), dtype=torch.uint8)),
                ("random.numpy", torch.full((1, 627), -1.0, dtype=torch.float64)),
                ("random.numpy", torch.zeros((1, 628), dtype=torch.float64)),
                ("random.python", torch.full((1, 626), 700.0, dtype=torch.float64)),
                ("random.python", torch.zeros((2, 626), dtype=torch.float64)),
            ]
        ),
    ],
)
def test_tensors_of_another_training(name: str, value: Any, stopped: Path) -> None:
    before = random.getstate()
    for path in results.checkpoints(stopped):
        tensors = {key: tensor for key, tensor in {**load_file(path), name: value}.items() if tensor is not None}
        rewrite(path, tensors)
    with pytest.raises(FusionError, match=like("run/checkpoint-000004.safetensors should be a checkpoint of this")):
        resume(stopped)
    assert random.getstate() == before
    assert len(results.checkpoints(stopped)) == 2


CURVES = {"loss": [1.0] * 4, "score": [0.5] * 4, "lr": [0.1] * 4, "best_epoch": 0}


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"history": {**CURVES, "lr": [0.1] * 3}}, "should be a checkpoint of this training, with curves of at most 5"),
        ({"history": {**CURVES, "score": []}}, "should be a checkpoint of this training, with curves of at most 5"),
        ({"history": {"loss": [], "score": [], "lr": [], "best_epoch": 0}}, "with curves of at most 5"),
        ({"history": {"loss": [1.0] * 6, "score": [1.0] * 6, "lr": [1.0] * 6, "best_epoch": 0}}, "found the lengths"),
        ({"best_epoch": 1, "best_value": 0.5}, "with a best epoch of at most 0 and its value; found 1 and 0.5."),
        ({"best_value": 0.5}, "with a best epoch of at most 0 and its value; found 0 and 0.5."),
        ({"gradient_scaler": {"scale": 2.0}}, "with the gradient scaler's no state; found {'scale': 2.0}."),
        ({"config": {}}, "should contain the config of its run; found {}."),
        ({"schema_version": 2}, "should be the checkpoint of a run: schema_version should be 1; found 2."),
    ],
)
def test_facts_of_another_training(facts: dict[str, Any], sentence: str, stopped: Path) -> None:
    changed(stopped, **facts)
    with pytest.raises((FusionError, ConfigError), match=re.escape(sentence)):
        resume(stopped)


def test_a_hostile_config_runs_nothing(stopped: Path, config: Config) -> None:
    cfg = every(config())
    cfg["fusion"]["preprocess"] = {"_target_": "os.system", "command": "touch owned"}
    changed(stopped, config=cfg)
    with pytest.raises(ConfigError, match=like("fusion.preprocess._target_ should be")):
        resume(stopped)
    assert not Path("owned").exists()
    assert len(results.checkpoints(stopped)) == 2


def test_files_are_written_whole(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full fails a checkpoint and not the run, and the checkpoint before it stays."""
    from fusionkit.experiment import checkpoint

    save, count = save_file, iter(range(9))

    def fails(tensors: Any, path: Path, metadata: Any) -> None:
        if next(count) == 1:
            path.write_bytes(b"a part")
            raise OSError(28, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", fails)
    with pytest.warns(RuntimeWarning, match="The checkpoint of epoch 4 could not be written: .*No space left"):
        assert stop(every(config()), Path("run"), 0.8) == ["checkpoint-000002.safetensors"]
    assert not list(Path("run").glob(".partial-*"))


def test_the_last_two_are_kept(config: Config) -> None:
    cfg = every(config(train__epochs=7), 1)
    for epoch, kept in ((1, [1]), (2, [1, 2]), (6, [5, 6])):
        names = stop(cfg, Path("run"), epoch / 7)
        assert names == [f"checkpoint-{number:06d}.safetensors" for number in kept]


# -- processes that are killed -----------------------------------------------------------------------------------------


@pytest.fixture
def killable(site: Site, npz: Write, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install the operator that kills its process; return the command that trains it in a process of its own."""
    folder = str(Path(__file__).parents[2])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site.folder), folder]))
    site.fusions("fusionkit-mortal", {"mortal": "tests.experiment.mortal:Mortal"})
    options = ["train.epochs=5", "train.batch_size=16", "n=5", "train.checkpoint_every=1"]
    return ["run", "data=npz", f"data.path={npz()}", "fusion=mortal", *options]


def call(argv: list[str], calls: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command; its process is killed at this call of the operator in training, of which an epoch has 3."""
    environment = {**os.environ, VARIABLE: str(calls)}
    return subprocess.run(
        [sys.executable, "-m", "fusionkit", *argv], check=False, env=environment, capture_output=True, text=True
    )


def test_a_killed_run_goes_on(killable: list[str]) -> None:
    assert call([*killable, "hydra.run.dir=whole"]).returncode == 0
    assert call([*killable, "hydra.run.dir=run"], 11).returncode == -signal.SIGKILL
    assert not Path("run/result.json").exists()
    repeated = call(["run", "--from", "run"])
    assert (
        "found no result.json in run; that run was stopped after epoch 3, from where --resume goes on"
        in repeated.stderr
    )
    board = call(["leaderboard", ".", "--json"])
    assert json.loads(board.stdout)["resumable"] == [{"path": "run", "after": "epoch 3"}]
    assert "resumable: run: fusionkit run --resume run goes on after epoch 3\n" in board.stderr
    resumed = call(["run", "--resume", "run"])
    assert resumed.returncode == 0, resumed.stderr
    assert "after epoch 3, in run\nepoch 4/5" in resumed.stderr
    assert state(Path("run")) == state(Path("whole"))
    assert Path("run/.hydra/config.yaml").is_file()


@pytest.mark.exhaustive
def test_a_killed_sweep_goes_on_with_its_job(killable: list[str]) -> None:
    sweep = [*killable, "-m", "seed=0,1"]
    assert call([*sweep, "hydra.sweep.dir=whole"]).returncode == 0
    assert call([*sweep, "hydra.sweep.dir=killed"], 11).returncode == -signal.SIGKILL
    again = call([*sweep, "hydra.sweep.dir=killed"])
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("resumed after epoch 3") == 1
    for run_dir in Path("whole").glob("*/result.json"):
        assert state(run_dir.parent) == state(Path("killed") / run_dir.parent.name)
    assert not list(Path("killed").rglob("checkpoint*"))


@pytest.mark.exhaustive
def test_a_job_whose_worker_dies_goes_on_in_the_same_sweep(killable: list[str]) -> None:
    """Each process of the operator dies in its fourth epoch, which is enough for five from the checkpoint on.

    The first that dies takes the other worker along, in whatever epoch that is.
    """
    sweep = [*killable, "-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert call([*sweep, "hydra.sweep.dir=whole"]).returncode == 0
    again = call([*sweep, "hydra.sweep.dir=killed"], 11)
    assert again.returncode == 0, again.stderr
    assert "resumed after epoch 3" in again.stderr
    for run_dir in Path("whole").glob("*/result.json"):
        assert state(run_dir.parent) == state(Path("killed") / run_dir.parent.name)


def test_a_job_begins_afresh_with_another_version(stopped: Path, config: Config) -> None:
    for path in results.checkpoints(stopped):
        rewrite(path, versions={"torch": "2.0"})
    fractions: list[float] = []
    run_recorded(every(config()), stopped, resume=True, quiet=True, report=fractions.append)
    assert fractions[0] == 0.2


def test_an_interrupted_run_keeps_its_checkpoints(config: Config) -> None:
    class Interrupt(StopAt):
        def __call__(self, fraction: float) -> None:
            if fraction >= self.fraction:
                raise KeyboardInterrupt

    cfg = every(config())
    run_job(config(), Path("whole"), quiet=True)
    with pytest.raises(KeyboardInterrupt):
        run_recorded(cfg, Path("run"), quiet=True, report=Interrupt(0.8))
    assert len(results.checkpoints(Path("run"))) == 2
    shutil.copytree("run", "copy")
    for run_dir in (Path("run"), Path("copy")):
        resume(run_dir)
        assert state(run_dir) == state(Path("whole"))
    validate(cfg)
