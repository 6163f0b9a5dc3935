"""``fusionkit run`` as a user meets it: what it prints, returns, writes and leaves alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omegaconf
import pytest

from fusionkit import FusionError
from fusionkit.config import config_hash
from fusionkit.config.options import RunConfig
from tests.cli.run.records import only, record


def test_a_real_run_writes_its_files(run: Callable[..., tuple[int, str, str]], views: str) -> None:
    status, out, err = run("data=npz", f"data.path={views}", "n=5", "train.epochs=3", "train.batch_size=16")
    assert status == 0
    assert "accuracy" in out
    folder = only("outputs/*/*")
    place = folder.relative_to(Path.cwd())
    title = f"training parameterized_concatenation (dense) on views.npz, seed 0, in {place}\n"
    assert f"\n{title}epoch 1/3  loss " in err
    assert err.startswith("data: ")
    names = {"result.json", "model.safetensors", "rows.npz", "curve.png", "views.png", ".hydra"}
    assert {file.name for file in folder.iterdir()} == names
    assert {file.name for file in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    found = record()
    assert found["status"] == "completed"
    assert found["data_dims"] == [4, 3]
    assert 0 <= found["metrics"]["accuracy"] <= 1


def test_the_job_gets_the_plain_configuration(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    assert run("n=8", "fabrication=lowrank", "fabrication.r=2", "fusion/preprocess=layer_norm")[0] == 0
    (cfg,) = trained
    assert "hydra" not in cfg
    assert type(cfg["fusion"]) is dict
    assert cfg["fusion"]["n"] == 8
    assert cfg["fusion"]["dims"] == cfg["dims"] == [76, 216, 64, 240, 47, 6]
    assert cfg["fusion"]["parameter_fabrication"] == cfg["fabrication"] == {"name": "lowrank", "r": 2}
    assert cfg["fusion"]["preprocess"] == {"name": "layer_norm"}


def test_a_saved_configuration_composes_again(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    from omegaconf import OmegaConf

    from fusionkit.config import build

    run("n=8", "fabrication=lowrank")
    saved = OmegaConf.load(only("outputs/*/*/.hydra/config.yaml"))
    assert build(saved.fusion).calculate_l() == 8 * (8 + 649)
    overrides = OmegaConf.load(only("outputs/*/*/.hydra/overrides.yaml"))
    assert run(*overrides, "hydra.run.dir=again")[0] == 0
    assert config_hash(trained[0]) == config_hash(trained[1])


def test_the_output_directory_may_be_chosen(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    assert run("hydra.run.dir=here")[0] == 0
    assert Path("here/result.json").is_file()
    assert not Path("outputs").exists()


def failing(run: Callable[..., tuple[int, str, str]], *argv: str) -> tuple[str, dict[str, Any]]:
    status, out, err = run(*argv)
    assert status in (1, 2)
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in out + err
    folder = only("outputs/*/*")
    assert {file.name for file in folder.iterdir()} == {".hydra", "result.json"}
    found = record()
    assert found["status"] == "failed"
    assert found["config_hash"] is not None
    return err, found


def test_wrong_dims_are_no_reason_to_advise_encoders(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    status, _, err = run("dims=[1,2]", f"hydra.run.dir={tmp_path / 'run'}")
    assert status == 2
    assert "found [1, 2]." in err
    assert "encoder" not in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fabrication=lowrank", "fabrication.r=100"], "100"),
        (["train.devices=100000"], "on this machine; found 100000."),
        (["n=100000000000000"], "The run should fit into the memory of its device; found too little for 25960"),
    ],
)
def test_other_failures_are_recorded_too(
    argv: list[str], message: str, run: Callable[..., tuple[int, str, str]], views: str
) -> None:
    err, found = failing(run, *argv)
    assert message in err
    assert message in found["error"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["data=npz", "data.path=nowhere.npz"], "nowhere.npz"),
        (["data=npz", "data.path=views.npz", "data.dims=[4,4]"], "[4, 4]"),
        (["data=npz", "data.path=views.npz", "task=multilabel"], "task=multilabel; found 2 in row 2."),
    ],
)
def test_data_that_cannot_be_used_leave_an_earlier_run_alone(
    argv: list[str], message: str, run: Callable[..., tuple[int, str, str]], views: str
) -> None:
    place = "hydra.run.dir=run"
    assert run("data=npz", f"data.path={views}", "train.epochs=1", place)[0] == 0
    before = {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()}
    status, _, err = run(*argv, place)
    assert status == 2
    assert message in err
    assert {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "error", [RuntimeError("two\nlines"), SystemExit(3), MemoryError(), AssertionError("x"), GeneratorExit()]
)
def test_whatever_a_job_raises_is_recorded(
    error: BaseException, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fusionkit.experiment.run

    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        (run_dir / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    err, found = failing(run)
    assert type(error).__name__ in err
    assert found["error_type"] == type(error).__name__


@pytest.mark.parametrize(
    ("number", "status", "shown", "found"),
    [
        (signal.SIGINT, 130, "interrupted", "an interruption"),
        (signal.SIGTERM, 143, "terminated", "an end by SIGTERM"),
        (signal.SIGHUP, 129, "terminated", "an end by SIGHUP"),
    ],
)
def test_an_interruption_is_recorded_as_a_failure(
    number: signal.Signals,
    status: int,
    shown: str,
    found: str,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fusionkit.experiment.run

    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        (run_dir / "model.safetensors").write_bytes(b"half")
        signal.raise_signal(number)
        time.sleep(5)
        raise AssertionError

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    # As when started from a terminal; under nohup the process ignores SIGHUP.
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)
    try:
        assert run() == (status, "", f"error: {shown}\n")
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)
    assert record()["status"] == "failed"
    assert record()["error"] == f"The run should come to its end; found {found}."
    assert {file.name for file in only("outputs/*/*").iterdir()} == {".hydra", "result.json"}


def test_a_signal_that_is_ignored_stays_so(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fusionkit.experiment.run

    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        signal.raise_signal(signal.SIGHUP)
        raise FusionError("it went on.")

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run() == (1, "", "error: it went on.\n")
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(omegaconf.__version__ >= "2.4", reason="OmegaConf 2.4 writes no such name to config.yaml")
def test_a_name_that_is_no_text_is_shown_and_drawn(run: Callable[..., tuple[int, str, str]], views: str) -> None:
    odd = os.fsdecode(b"v\xe9ws.npz")
    try:
        Path(views).rename(odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    status, out, err = run("data=npz", f"data.path='{odd}'", "train.epochs=1")
    assert (status, out.splitlines()[0]) == (
        0,
        r"run         parameterized_concatenation (dense) on v\udce9ws.npz, seed 0",
    ), err
    assert only("outputs/*/*/curve.png").stat().st_size > 0


def test_a_closed_pipe_is_not_an_error_message(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fusionkit.experiment.run

    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        raise BrokenPipeError

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    monkeypatch.setattr(os, "dup2", lambda *descriptors: None)
    assert run() == (1, "", "")


@pytest.mark.parametrize("error", [BrokenPipeError(), KeyboardInterrupt(), RuntimeError("no terminal")])
def test_what_goes_wrong_after_the_end_does_not_undo_a_run(
    error: BaseException,
    run: Callable[..., tuple[int, str, str]],
    trained: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fusionkit.experiment.run

    whole = fusionkit.experiment.run.run_job

    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        whole(config, run_dir, **options)
        raise error  # While it prints the summary.

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    monkeypatch.setattr(os, "dup2", lambda *descriptors: None)
    assert run()[0] in (1, 130)
    assert record()["status"] == "completed"
    assert only("outputs/*/*/model.safetensors").is_file()


def test_a_directory_that_cannot_be_written(run: Callable[..., tuple[int, str, str]]) -> None:
    Path("file").write_text("")
    status, _, err = run("hydra.run.dir=file/below")
    assert status == 1
    assert "file" in err
    assert err.count("\n") == 1
