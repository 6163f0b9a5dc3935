"""``fusionkit run`` as a user meets it: what it prints, returns, writes and leaves alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import omegaconf
import pytest

from fusionkit import FusionError, cli
from fusionkit.config import config_hash
from fusionkit.config.options import RunConfig
from fusionkit.experiment.job import Job
from tests.exhaustive import exhaustive


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import logging

    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level, handlers, config = root.level, list(root.handlers), HydraConfig.instance().cfg
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    HydraConfig.instance().cfg = config
    GlobalHydra.instance().clear()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call ``fusionkit run`` and return status, stdout and stderr."""

    def call(*argv: str) -> tuple[int, str, str]:
        status = cli.main(["run", *argv])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace training by a record, and return the configurations it was given."""
    import fusionkit.experiment.run
    from fusionkit.config import build
    from fusionkit.experiment import results

    seen: list[dict[str, Any]] = []

    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        cfg = config.tree
        build(cfg["fusion"], "fusion")
        seen.append(cfg)
        results.start(run_dir)
        (run_dir / results.MODEL).write_bytes(b"")
        found = results.record(cfg, status="completed", metrics={"accuracy": 0.5}, config_hash=config_hash(cfg))
        results.write_json(run_dir / results.RESULT, found)
        return found

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    return seen


@pytest.fixture
def views(tmp_path: Path, arrays: dict[str, Any]) -> str:
    np.savez(tmp_path / "views.npz", **arrays)
    return "views.npz"


def only(pattern: str) -> Path:
    (found,) = Path.cwd().glob(pattern)
    return found


def record(pattern: str = "outputs/*/*/result.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(only(pattern).read_text())
    return found


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_real_run_writes_its_files(run: Callable[..., tuple[int, str, str]], views: str) -> None:
    status, out, err = run("data=npz", f"data.path={views}", "n=5", "train.epochs=3", "train.batch_size=16")
    assert status == 0
    assert "accuracy" in out
    folder = only("outputs/*/*")
    place = folder.relative_to(Path.cwd())
    title = f"training parameterized_concatenation (dense) on views.npz, seed 0, in {place}\n"
    assert err.startswith(f"{title}epoch 1/3  loss ")
    names = {"result.json", "model.safetensors", "curve.png", ".hydra"}
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


# -- what is wrong before anything is written --------------------------------------------------------------------------

REFUSED = {
    "unknown_operator": (["fusion=sumation"], "found 'sumation'. Did you mean 'summation'"),
    "qualified_operator": (
        ["fusion=fusionkit/sumation"],
        "found 'fusionkit/sumation'. Did you mean 'fusionkit/summation'",
    ),
    "qualified_by_nobody": (["fusion=other/summation"], "found 'other/summation'. Did you mean 'fusionkit/summation'?"),
    "malformed_value": (["n==3"], "An override should have the form key=value; found 'n==3'."),
    "unknown_fabrication": (["fabrication=lowrnk"], "found 'lowrnk'. Did you mean 'lowrank'"),
    "unknown_preset": (["fusion=lowrank_parametrized_concatenation"], "'lowrank_parameterized_concatenation'"),
    "unknown_data": (["data=mfaet"], "There is no data 'mfaet'. Did you mean 'mfeat'?"),
    "unknown_group": (["fabricaton=dense"], "There is no key 'fabricaton'. Did you mean 'fabrication'?"),
    "unknown_experiment": (["+experiment=debgu"], "There is no experiment 'debgu'. Did you mean 'debug'?"),
    "unknown_key": (["fusion.nn=3"], "There is no key 'fusion.nn'. Did you mean 'fusion.n'?"),
    "unknown_deep_key": (["fabrication=lowrank", "fabrication.rr=3"], "Did you mean 'fabrication.r'?"),
    "unknown_top_key": (["ssed=3"], "There is no key 'ssed'. Did you mean 'seed'?"),
    "added_key": (["+train.epoch=3"], "There is no key 'train.epoch'. Did you mean 'train.epochs'?"),
    "added_option": (
        ["+fusion.prepocess=linear"],
        "There is no key 'fusion.prepocess'. Did you mean 'fusion.preprocess' or",
    ),
    "added_top_key": (["+nn=3"], "There is no key 'nn'. Did you mean 'n'?"),
    "deleted_key": (["~seed"], "seed should be in the configuration; found nothing."),
    "deleted_group": (["~data"], "data should be in the configuration; found nothing."),
    "malformed": (["fusion={"], "An override should have the form key=value; found 'fusion={'"),
    "no_value": (["fusion"], "An override should have the form key=value; found 'fusion'. Did you mean fusion=...?"),
    "bare_option": (["lowrank"], "the form key=value; found 'lowrank'. Did you mean fabrication=lowrank?"),
    "misspelt_bare_option": (["mfaet"], "found 'mfaet'. Did you mean data=mfeat?"),
    "bare_key": (["seed", "3"], "the form key=value; found 'seed'. Did you mean seed=...?"),
    "bare_nonsense": (["a b"], "An override should have the form key=value; found 'a b'."),
    "flag_for_key": (["--epochs", "3"], "found '--epochs 3'. Did you mean train.epochs=3?"),
    "flag_with_value": (["--batch-size=8"], "found '--batch-size=8'. Did you mean train.batch_size=8?"),
    "flag_alone": (["--lr", "seed=1"], "the form key=value; found '--lr'. Did you mean train.lr=...?"),
    "flag_for_option": (["fabrication=lowrank", "--r", "4"], "found '--r 4'. Did you mean fabrication.r=4?"),
    "flag_beside_a_mistake": (["fusion=nope", "--seed", "4"], "found '--seed 4'. Did you mean seed=4?"),
    "short_flag": (["-n", "32"], "found '-n 32'. Did you mean n=32?"),
    "unknown_flag": (["--bogus"], "--from; found '--bogus'. Overrides have the form key=value."),
    "abbreviated_flag": (["--multi"], "found '--multi'. Did you mean '--multirun'?"),
    "key_of_another_option": (["data.path=x.npz"], "There is no key 'data.path' here. It belongs to data=npz."),
    "key_of_another_option_misspelt": (
        ["fabrication.rank=4"],
        "There is no key 'fabrication.rank'. Did you mean fabrication.r, which belongs to "
        "fabrication=dual_lowrank_kronecker, fabrication=khatri_rao, fabrication=lowrank,",
    ),
    "key_by_its_meaning": (
        ["fabrication=lowrank", "fabrication.rank=4"],
        "There is no key 'fabrication.rank'. Did you mean 'fabrication.r'?",
    ),
    "key_of_a_group": (["epochs=3"], "There is no key 'epochs'. Did you mean 'train.epochs'?"),
    "key_below_a_value": (["n.m=3"], "There is no key 'n.m', because n is a single value."),
    "null_group": (["fusion=null"], "A group should be set to the name of one of its options; found null."),
    "sweep_without_m": (
        ["seed=0,1"],
        "seed should be one value in a single run; found '0,1'.  Add -m to sweep over it",
    ),
    "missing_value": (["data=npz"], "data.path should be given, as in data.path=...; found nothing."),
    "negative_n": (["n=-3"], "n should be an integer of at least 1; found -3."),
    "zero_n": (["n=0"], "n should be an integer of at least 1; found 0."),
    "fractional_n": (["n=2.5"], "n should be an integer of at least 1; found 2.5."),
    "text_n": (["n=many"], "n should be an integer of at least 1; found 'many'."),
    "boolean_n": (["n=true"], "n should be an integer of at least 1; found True."),
    "operators_n": (["fusion.n=-3"], "fusion.n should be an integer of at least 1 or null; found -3."),
    "seed": (["seed=-1"], "seed should be an integer from 0 to 4294967295; found -1."),
    "optimizer": (
        ["train.optimizer=adma"],
        "train.optimizer should be one of adamw, adam, sgd; found 'adma'. Did you mean 'adam' or 'adamw'?",
    ),
    "scheduler": (["train.scheduler=linear"], "train.scheduler should be one of onecycle, constant; found 'linear'."),
    "head": (["model.head=mlp"], "model.head should be 'linear'; found 'mlp'."),
    "processing": (["fusion.preprocess=[gelu,nothng]"], "fusion.preprocess[1].name should be one of identity, "),
    "dims": (["dims=[4,0]"], "dims should be a list of integers of at least 1, or null; found [4, 0]."),
    "empty_dims": (["dims=[]"], "dims should be a list of integers of at least 1, or null; found []."),
    "device": (["device=7"], "device should be a device such as cpu, cuda or cuda:1; found 7."),
    "epochs": (["train.epochs=0"], "train.epochs should be an integer of at least 1; found 0."),
    "lr": (["train.lr=0"], "train.lr should be a number above 0; found 0."),
    "infinite_lr": (["train.lr=inf"], "train.lr should be a number above 0; found inf."),
    "nan_lr": (["train.lr=nan"], "train.lr should be a number above 0; found nan."),
    "text_lr": (["train.lr=fast"], "train.lr should be a number above 0; found 'fast'."),
    "test_size": (["data.test_size=1"], "data.test_size should be a number above 0 and below 1; found 1."),
    "smoothing": (
        ["train.label_smoothing=2"],
        "train.label_smoothing should be a number of at least 0 and below 1; found 2.",
    ),
    "encoder": (
        ["model.encoder=linaer"],
        "model.encoder should be one of none, linear, mlp; found 'linaer'. Did you mean 'linear'?",
    ),
    "precision": (["train.precision=16"], "train.precision should be one of 32-true"),
    "rank_type": (
        ["fabrication=lowrank", "fabrication.r=two"],
        "fabrication.r should be an integer or null; found 'two'.",
    ),
    "path_as_name": (["fusion.name=os:system"], "fusion.name"),
    "two_modes": (["--cfg", "job", "--info"], "Only one of --run, --multirun, --cfg, --info"),
    "resolve_alone": (["--resolve"], "--resolve should stand beside --cfg or --help"),
    "no_config_dir": (["--config-dir", "nowhere"], "--config-dir should be an existing folder; found 'nowhere'."),
    "no_config_path": (["--config-path", "nowhere"], "--config-path should be an existing folder; found 'nowhere'."),
    "no_config_name": (["--config-name", "confg"], "There should be a primary config 'confg'"),
    "dangling": (["n=${nothing}"], "error: n should lead to a value; found: Interpolation key 'nothing' not found"),
    "no_group_value": (["+fusion@x=average"], "x"),
}
if find_spec("submitit") is None:
    REFUSED["missing_launcher"] = (
        ["-m", "seed=0,1", "hydra/launcher=submitit_slurm"],
        "There is no hydra/launcher 'submitit_slurm'. pip install 'fusionkit[launchers]' installs it.",
    )
if hydra.__version__.startswith("1.3"):
    # The other line writes the reference out and changes the copy.
    REFUSED["below_a_reference"] = (
        ["fusion.parameter_fabrication.name=lowrank"],
        "fusion.parameter_fabrication.name should be set where fusion.parameter_fabrication is taken from, "
        "${fabrication}; found it below a reference.",
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_command_line_is_one_sentence_and_writes_nothing(
    name: str, run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    argv, message = REFUSED[name]
    status, out, err = run(*argv)
    assert status == 2
    assert " ".join(message.split()) in err, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert list(Path.cwd().iterdir()) == []
    assert trained == []


@pytest.mark.parametrize("argv", [["--cfg", "jbo"], ["--cfg"], ["--resolve=yes"]])
def test_other_mistakes_are_in_the_words_of_hydras_parser(
    argv: list[str], run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: fusionkit run ")
    assert f"Error: argument {argv[0].partition('=')[0]}" in err
    assert trained == []


def test_debug_shows_the_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fusionkit", "run", "--debug", "fusion=sumation"], capture_output=True, text=True
    )
    assert "Traceback" in done.stderr
    assert "MissingConfigException" in done.stderr


# -- what does not fit the machine or each other -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fusion=summation"], "216"),
        (["fusion=median"], "model.encoder=linear makes the views equally wide."),
        (["fusion=average", "dims=null", "fusion.dims=null"], "216"),
        (["device=cuda:99"], "device should be one of this machine: cpu"),
        (["device=tpu"], "found 'tpu'"),
        (["device=meta"], "device should be one that computes; found 'meta'."),
        (["device=cpu:3"], "found 'cpu:3'"),
        (
            ["fusion=concatenation", "fabrication=lowrank"],
            "fabrication should be dense, because the fusion 'concatenation' takes none; found 'lowrank'.",
        ),
        (
            ["fusion=lowrank_parameterized_concatenation", "fabrication=lowrank"],
            "fabrication should be left at dense, because this fusion fixes its own, 'lowrank'",
        ),
        (["fusion=lowrank_parameterized_concatenation", "fabrication=toeplitz"], "this fusion fixes its own"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    argv: list[str], message: str, run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, _, err = run(*argv)
    assert status == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []
    assert trained == []


def test_a_single_run_is_composed_once_and_validated_once(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusionkit.config import composition, options

    calls: Counter[str] = Counter()
    for module, name in ((composition, "plain_config"), (options, "check")):
        whole = getattr(module, name)

        def counted(*args: Any, whole: Any = whole, name: str = name, **kwargs: Any) -> Any:
            calls[name] += 1
            return whole(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)
    assert run()[0] == 0
    assert calls == {"plain_config": 1, "check": 1}


# -- what fails after that ---------------------------------------------------------------------------------------------


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
    assert status == 1
    assert "found [1, 2]." in err
    assert "encoder" not in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["data=npz", "data.path=nowhere.npz"], "nowhere.npz"),
        (["data=npz", "data.path=views.npz", "data.dims=[4,4]"], "[4, 4]"),
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


def test_nobody_reads_on(
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


# -- sweeps ------------------------------------------------------------------------------------------------------------


def test_a_sweep_names_directories_by_hash_and_skips_what_is_completed(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    assert run("-m", "fusion=concatenation,parameterized_concatenation", "seed=0,1")[0] == 0
    assert len(trained) == 4
    folders = {folder.name for folder in Path("multirun").iterdir() if folder.is_dir()}
    assert folders == {config_hash(cfg) for cfg in trained}
    status, out, err = run("-m", "seed=1,0,2", "fusion=concatenation,parameterized_concatenation")
    assert status == 0
    assert re.fullmatch(
        r"6 jobs in 0:\d\d: 6 completed \(4 of them earlier\); .*: fusionkit leaderboard multirun\n", out
    )
    assert err.count("  earlier  accuracy 0.5000  seed=") == 4
    assert len(trained) == 6
    assert {cfg["seed"] for cfg in trained[4:]} == {2}


def test_a_sweep_directory_with_the_time_in_its_name_is_one_directory(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    assert run("-m", "seed=0,1", "hydra.sweep.dir='sweeps/${now:%S-%f}'")[0] == 0
    (folder,) = Path("sweeps").iterdir()
    assert len(list(folder.glob("*/result.json"))) == 2


def test_a_job_that_did_not_complete_is_run_again(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    run("-m", "seed=0,1,2")
    names = {cfg["seed"]: Path("multirun") / config_hash(cfg) for cfg in trained}
    (names[0] / "result.json").unlink()
    (names[1] / "result.json").write_text('{"status": "compl')
    assert run("-m", "seed=0,1,2")[0] == 0
    assert [cfg["seed"] for cfg in trained] == [0, 1, 2, 0, 1]


def test_a_failing_job_does_not_stop_the_others(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, _, err = run("-m", "fusion=summation,concatenation,average", "seed=0")
    assert status == 1
    assert [cfg["fusion"]["name"] for cfg in trained] == ["concatenation"]
    progress, listed = err.split("error: 2 of 3 jobs failed:\n")
    assert [" ".join(line.split()[:2]) for line in progress.splitlines()] == [
        "1/3 failed",
        "2/3 completed",
        "3/3 failed",
    ]
    rest = listed.splitlines()
    assert [line.split(":")[0].strip() for line in rest] == ["fusion=summation", "fusion=average"]
    states = [json.loads(file.read_text())["status"] for file in Path("multirun").glob("*/result.json")]
    assert sorted(states) == ["completed", "failed", "failed"]
    assert not list(Path("multirun").glob(".outcomes"))


def test_a_swept_device_is_part_of_the_name(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, _, err = run("-m", "device=cpu,nothing")
    assert status == 1
    assert "device=nothing: device should be one of this machine" in err
    names = sorted(folder.name for folder in Path("multirun").iterdir() if folder.is_dir())
    assert names == [f"{config_hash(trained[0])}-{device}" for device in ("cpu", "nothing")]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fusion=average,sumation"], "Did you mean 'summation'"),
        (["seed=0,-1"], "seed should be an integer from 0 to 4294967295; found -1."),
        (["seed=interval(0,1)"], "does not support sweep type"),
        (["hydra.run.dir=a,b"], "Sweeping over Hydra's configuration is not supported"),
    ],
)
def test_a_sweep_with_a_wrong_job_is_refused_as_a_whole(
    argv: list[str], message: str, run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, _, err = run("-m", *argv)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert trained == []
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.exhaustive
def test_sweeps_over_groups_and_ranges(run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]) -> None:
    assert run("-m", "fusion=glob(*concat*)", "seed=range(0,2)", "n=choice(4)")[0] == 0
    names = {(cfg["fusion"]["name"], cfg["seed"]) for cfg in trained}
    assert {("concatenation", 0), ("parameterized_concatenation", 1)} <= names


@pytest.mark.exhaustive
def test_an_experiment_may_be_a_sweep(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {seed: 'range(0,3)'}\n"
    (folder / "seeds.yaml").write_text(text)
    assert run("--config-dir", "mine", "+experiment=seeds")[0] == 0
    assert [cfg["seed"] for cfg in trained] == [0, 1, 2]


# -- looking instead of running ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["--cfg", "job", "-p", "train"],
        *exhaustive(
            [
                ["--cfg", "job"],
                ["--cfg", "job", "--resolve"],
                ["--cfg", "hydra"],
                ["--cfg", "all"],
                ["--info"],
                ["--info", "defaults"],
                ["--help"],
                ["-h"],
                ["--hydra-help"],
                ["--cfg", "job", "data=npz"],
            ]
        ),
    ],
)
def test_looking_writes_nothing(
    argv: list[str], run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, out, err = run(*argv)
    assert status == 0
    assert out.strip()
    assert "Traceback" not in err
    assert list(Path.cwd().iterdir()) == []
    assert trained == []


@pytest.mark.exhaustive
def test_the_help_has_examples_and_names_hydras_own(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("--help")
    assert "fusionkit run -m fabrication=dense,lowrank seed=0,1,2" in out
    assert "--hydra-help" in out
    assert "parameterized_concatenation" in out
    _, out, _ = run("--hydra-help")
    assert "hydra/launcher" in out


def test_looking_at_an_operator_with_a_file_imports_no_torch() -> None:
    script = (
        "import sys\nfrom fusionkit.cli import main\n"
        "assert main(['run', '--cfg', 'job', 'fusion=average', 'fabrication=lowrank', 'n=3']) == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_options_and_overrides_may_stand_in_any_order(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("n=3", "--cfg", "job", "seed=4")
    assert "'n': 3" in out
    assert "seed: 4" in out


# -- completion --------------------------------------------------------------------------------------------------------


def complete(line: str) -> list[str]:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom fusionkit.cli import main\nmain(sys.argv[1:])\nprint('torch' in sys.modules)",
            "run",
            "-sc",
            "query=bash",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))},
    )
    *words, torch_imported = done.stdout.split()
    assert torch_imported == "False"
    return words


def test_completion_knows_operators_keys_and_commands() -> None:
    assert {"fusion=average", "fusion=summation"} <= set(complete("fusionkit run fusion="))
    assert complete("fusionkit run fusion=av") == ["fusion=average"]
    assert complete("fusionkit run train.ep") == ["train.epochs="]
    assert complete("fusionkit le") == ["leaderboard"]
    assert complete("fusionkit list ") == []


def test_the_completion_script_asks_the_run_command(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fusionkit"])
    _, out, _ = run("-sc", "install=bash")
    assert "$helper run -sc query=bash" in out
    assert out.rstrip().endswith("hydra_bash_completion fusionkit")


def test_job_survives_a_pickle() -> None:
    import pickle

    job = Job(sweep="somewhere")
    assert pickle.loads(pickle.dumps(job)) == job
