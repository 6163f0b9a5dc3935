"""Sweeps: whatever a job does, the others go on; whatever was killed goes on later; everybody sees how far it is."""

from __future__ import annotations

import copy
import gc
import json
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

import fusionkit.experiment.run
from fusionkit import cli
from fusionkit.config.options import RunConfig
from fusionkit.errors import FusionError
from fusionkit.experiment import sweep
from fusionkit.experiment.job import Outcome, directory_lock
from fusionkit.experiment.sweep import OUTCOMES, Watch
from tests import study_sweeper
from tests.exhaustive import exhaustive
from tests.fake_distributions import Site

NAMES = ("exits", "unpicklable", "quits", "dies", "naughty")
KILLED = "The process of a run should end with its result; found "
#: What the sweep says of a job of each operator.
SENTENCES = {
    "exits": "SystemExit: 3",
    "unpicklable": "Odd",
    "quits": f"{KILLED}exit status 7.",
    "dies": f"{KILLED}an end by SIGKILL.",
    "naughty": "The training loss should be finite; found nan in epoch 1 of 2. A smaller train.lr than 0.01 may help.",
}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site, arrays: dict[str, Any]) -> Iterator[None]:
    """Start in an empty directory with a space in its name, with data and the hostile operators."""
    from hydra.core.hydra_config import HydraConfig

    place = tmp_path / "my sweeps"
    place.mkdir()
    monkeypatch.chdir(place)
    np.savez("my views.npz", **arrays)
    folder = str(Path(__file__).parents[2])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site.folder), folder]))
    site.fusions(
        "fusionkit-hostile", {name: f"tests.experiment.hostile:{name.capitalize()}" for name in (*NAMES, "roams")}
    )
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


DATA = ("data=npz", "data.path='my views.npz'", "train.epochs=2", "train.batch_size=16", "n=4")


def listed(err: str) -> dict[str, str]:
    """Return what the list at the end says: job -> error."""
    lines = err.partition("jobs failed:\n")[2].splitlines()
    found = {}
    for line in lines:
        job, why, place = re.fullmatch(r"  (?:fusion=)?(.+?): (.*) \((multirun/[0-9a-f]+)\)", line).groups()  # type: ignore[union-attr]
        assert json.loads(Path(place, "result.json").read_text())["fusion"] == job
        found[job] = why
    return found


def board(capsys: pytest.CaptureFixture[str], directory: str) -> list[dict[str, Any]]:
    """Return the rows of the leaderboard without what the clock decides."""
    capsys.readouterr()
    assert cli.main(["leaderboard", directory, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    assert rows
    paths = [[Path(path).name for path in row["paths"]] for row in rows]
    return [{**row, "paths": names, "seconds": None} for row, names in zip(rows, paths, strict=True)]


# -- jobs that fail ----------------------------------------------------------------------------------------------------


def test_a_job_that_raises_any_error_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-m", *DATA, "fusion=exits,roams,unpicklable,naughty,concatenation"]) == 1
    out, err = capsys.readouterr()
    assert listed(err) == {name: SENTENCES[name] for name in ("exits", "unpicklable", "naughty")}
    assert re.fullmatch(
        r"5 jobs in \d:\d\d: 2 completed, 3 failed; compare them by: fusionkit leaderboard multirun\n", out
    )
    records = [json.loads(file.read_text()) for file in Path("multirun").glob("*/result.json")]
    assert sorted(record["status"] for record in records) == ["completed", "completed", "failed", "failed", "failed"]
    assert not Path("multirun", OUTCOMES).exists()


def test_changes_of_a_job_to_the_process_do_not_reach_the_next_job() -> None:
    before = Path.cwd(), torch.get_default_dtype()
    assert cli.main(["run", "-m", *DATA, "fusion=roams,concatenation"]) == 0
    assert cli.main(["run", *DATA, "n=7", "fusion=roams", "hydra.run.dir=alone"]) == 0
    assert (Path.cwd(), torch.get_default_dtype()) == before
    losses = [json.loads(file.read_text())["history"]["loss"] for file in Path().glob("*/**/result.json")]
    assert sorted(map(losses.count, losses)) == [1, 2, 2]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("fresh_workers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("launcher", "module", "options"),
    [
        ("joblib", "joblib", ["hydra.launcher.n_jobs=2"]),
        ("submitit_local", "submitit", []),
        ("ray", "ray", ["+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"]),
    ],
)
def test_a_job_that_ends_its_process_is_one_failed_job_under_every_launcher(
    launcher: str, module: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{module}_launcher")
    jobs = ["quits", "concatenation", "exits"] if launcher != "joblib" else [*NAMES, "concatenation"]
    line = ["run", "-m", *DATA, f"fusion={','.join(jobs)}", f"hydra/launcher={launcher}", *options]
    try:
        assert cli.main(line) == 1
    finally:
        if launcher == "ray":
            import ray  # type: ignore[import-not-found, unused-ignore]

            ray.shutdown()
        gc.collect()  # A launcher's processes may outlive it: their finalizers warn here, not in a later test.
    out, err = capsys.readouterr()
    assert listed(err) == {name: SENTENCES[name] for name in jobs if name != "concatenation"}
    assert f"{len(jobs)} jobs in " in out
    assert len(list(Path("multirun").glob("*/result.json"))) == len(jobs)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("fresh_workers")
@pytest.mark.filterwarnings("ignore")
def test_two_processes_per_job_inside_a_parallel_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert cli.main(["run", "-m", *DATA, "train.devices=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]) == 0
    records = [json.loads(file.read_text()) for file in Path("multirun").glob("*/result.json")]
    one, two = sorted(records, key=lambda record: record["config"]["train"]["devices"])
    assert two["config"]["train"]["devices"] == 2
    assert two["history"]["loss"] == pytest.approx(one["history"]["loss"], rel=1e-4)
    assert two["metrics"]["log_loss"] == pytest.approx(one["metrics"]["log_loss"], rel=1e-3)


# -- sweepers that compare jobs ----------------------------------------------------------------------------------------


@pytest.fixture
def _study(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Hydra discover a sweeper with Optuna's ``direction``."""
    plugins, store = Plugins.instance(), ConfigStore.instance()
    package = sys.modules.get("hydra_plugins") or types.ModuleType("hydra_plugins")
    monkeypatch.setitem(sys.modules, "hydra_plugins", package)
    monkeypatch.setitem(sys.modules, "hydra_plugins.study", study_sweeper)
    monkeypatch.setattr(package, "study", study_sweeper, raising=False)
    monkeypatch.setattr(study_sweeper.StudySweeper, "__module__", "hydra_plugins.study")
    monkeypatch.setattr(study_sweeper.StudySweeper, "made", [])
    plugins.register(study_sweeper.StudySweeper)
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    store.store("study", study_sweeper.StudyConfig, "hydra/sweeper")
    yield
    plugins.plugin_type_to_subclass_list[Sweeper].remove(study_sweeper.StudySweeper)
    plugins.class_name_to_class.pop("hydra_plugins.study.StudySweeper")


#: By seed: the record that a run gives.
RECORDS: dict[int, dict[str, Any]] = {
    0: {"metrics": {"accuracy": 0.5}},
    1: {"task": "regression", "metric": "rmse", "metrics": {"rmse": 2.5}, "validation": None},
    2: {"task": "regression", "metric": "rmse", "metrics": {"rmse": 2.5}, "validation": {"rmse": 4.0}},
    3: {"task": "regression", "metric": "r2", "metrics": {}, "validation": {"r2": 0.25}},
    4: {"metric": "roc_auc", "metrics": {"roc_auc": 0.75}, "validation": {"roc_auc": None}},
    5: {"metrics": {}, "validation": None},
}


@pytest.fixture
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        if config.seed == 6:
            raise FusionError("The seed should be another one; found 6.")
        return {"status": "completed", **RECORDS[config.seed]}

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)


@pytest.mark.usefixtures("_study", "_recorded")
def test_a_job_returns_its_metric_so_that_more_is_better(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["run", "-m", *DATA, "fusion=concatenation", "hydra/sweeper=study", "seed=0,1,2,3,4,5,6"]
    assert cli.main(line) == 1
    out, err = capsys.readouterr()
    (made,) = study_sweeper.StudySweeper.made
    assert made.returned == [0.5, -2.5, -4.0, 0.25, None, None, None]
    assert (made.direction, made.max_failure_rate) == ("maximize", 1.0)
    assert out.splitlines()[0] == "2 of 4 jobs ranked by the test part, because there is no validation part"
    lines = dict(zip(range(7), err.splitlines(), strict=False))
    assert re.match(r"2/\?  completed  rmse 2\.500  \d", lines[1])
    assert re.match(r"3/\?  completed  validation rmse 4\.000  \d", lines[2])
    assert re.match(r"5/\?  completed  \d", lines[4])


@pytest.mark.usefixtures("_study", "_recorded")
@pytest.mark.parametrize(
    ("options", "file", "direction"),
    [
        (["hydra/sweeper=study", "hydra.sweeper.direction=minimize"], "", "minimize"),
        (["hydra/sweeper=study", "hydra.sweeper.direction=[maximize]"], "", ["maximize"]),
        (["+experiment=own"], "direction: minimize", "minimize"),
        (["+experiment=own"], "max_failure_rate: 0.5", "maximize"),
    ],
)
def test_the_direction_is_the_users_where_there_is_one(options: list[str], file: str, direction: Any) -> None:
    Path("conf/experiment").mkdir(parents=True)
    defaults = "# @package _global_\ndefaults: [{override /hydra/sweeper: study}]\n"
    Path("conf/experiment/own.yaml").write_text(f"{defaults}hydra: {{sweeper: {{{file}}}}}\n")
    line = ["--config-dir", "conf", *DATA, "fusion=concatenation", *options, "seed=0"]
    assert cli.main(["run", "-m", *line]) == 0
    (made,) = study_sweeper.StudySweeper.made
    assert made.direction == direction


@pytest.mark.usefixtures("_recorded")
def test_a_sweep_that_compares_nothing_tells_no_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-m", *DATA, "fusion=concatenation", "seed=0,1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


# -- sweeps that are killed --------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_killed_and_resumed_sweep_gives_the_same_leaderboard(capsys: pytest.CaptureFixture[str]) -> None:
    swept = ["fusion=parameterized_concatenation", "fabrication=dense,lowrank", "train.epochs=40"]
    line = ["run", "-m", *DATA[:2], "n=4", *swept]
    assert cli.main([*line, "hydra.sweep.dir=whole"]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "fusionkit", *line, "hydra.sweep.dir=killed"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not list(Path("killed").glob("*/result.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    finished = {file: file.stat().st_mtime_ns for file in Path("killed").glob("*/result.json")}
    assert len(finished) == 1
    assert cli.main([*line, "hydra.sweep.dir=killed"]) == 0
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert board(capsys, "killed") == board(capsys, "whole")
    assert not Path("killed", OUTCOMES).exists()


@pytest.mark.exhaustive
def test_a_job_that_killed_a_serial_sweep_fails_alone_when_that_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["run", "-m", *DATA, "fusion=dies,concatenation"]
    killed = subprocess.run([sys.executable, "-m", "fusionkit", *line], check=False, stderr=subprocess.DEVNULL)
    assert killed.returncode == -9
    assert cli.main(line) == 1
    out, err = capsys.readouterr()
    assert listed(err) == {"dies": SENTENCES["dies"]}
    assert "2 jobs in " in out


@pytest.mark.exhaustive
def test_two_sweeps_in_one_directory_share_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["run", "-m", *DATA, "fusion=concatenation", "seed=0,1"]
    other = subprocess.Popen(
        [sys.executable, "-m", "fusionkit", *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    status = cli.main(line)
    out, err = other.communicate(timeout=120)
    assert (status, other.returncode) == (0, 0), err
    mine = capsys.readouterr().out
    assert "2 completed" in mine
    assert "2 completed" in out
    earlier = sum(int(found) for text in (mine, out) for found in re.findall(r"\((\d) of them earlier\)", text))
    assert earlier == 2
    assert len(list(Path("multirun").glob("*/result.json"))) == 2
    assert not Path("multirun", OUTCOMES).exists()


@pytest.mark.exhaustive
def test_a_job_that_a_sweep_lists_twice_runs_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-m", *DATA, "fusion=concatenation", "seed=0,0"]) == 0
    assert "2 completed (1 of them earlier)" in capsys.readouterr().out
    assert cli.main(["run", "-m", *DATA, "fusion=concatenation", "seed=0"]) == 0
    assert re.match(r"1 job in \d:\d\d: 1 completed \(1 of them earlier\);", capsys.readouterr().out)


@pytest.mark.parametrize("mode", [["-m", "seed=0,1", "hydra.sweep.dir=file/below"], ["hydra.run.dir=file/below"]])
def test_a_directory_that_cannot_be_written_is_one_sentence(
    mode: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    assert cli.main(["run", *DATA, *mode]) == 1
    err = capsys.readouterr().err
    assert re.match(r"error: The (run directory|directory of a sweep) should be writable; found .*file", err)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("where", "again"),
    [
        ([], ""),
        *exhaustive([(["hydra.sweep.dir='sweeps/${now:%Y}'"], f" with hydra.sweep.dir=sweeps/{datetime.now():%Y}")]),
    ],
)
def test_an_interrupted_sweep_prints_its_progress_and_how_to_resume(
    where: list[str], again: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        if config.seed == 2:
            raise KeyboardInterrupt
        if config.seed == 1:
            raise FusionError("The seed should be another one; found 1.")
        return {"status": "completed", "metrics": {"accuracy": 0.5}}

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    assert cli.main(["run", "-m", *DATA, "fusion=concatenation", "seed=0,1,2,3", *where]) == 130
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == (
        f"error: interrupted: 1 completed, 1 failed, 2 not run; the same command{again} runs the rest"
    )


@pytest.mark.exhaustive
def test_why_a_job_failed_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-m", *DATA, "fusion=naughty,concatenation"]) == 1
    assert capsys.readouterr().err.count(SENTENCES["naughty"]) == 1


# -- holding a directory -----------------------------------------------------------------------------------------------


def test_a_directory_is_locked_by_one_process_at_a_time(tmp_path: Path) -> None:
    with directory_lock(tmp_path / "run"):
        with (
            pytest.raises(Exception, match=r"^The run directory should .*found another run in .*run\.$"),
            directory_lock(tmp_path / "run", wait=False),
        ):
            pass
        assert list((tmp_path / "run").iterdir()) == []
    with directory_lock(tmp_path / "run", wait=False):
        pass


def test_a_run_in_a_directory_that_is_used_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with directory_lock(Path("here")):
        assert cli.main(["run", *DATA, "hydra.run.dir=here"]) == 1
    assert "The run directory should be used by one run at a time; found another run in" in capsys.readouterr().err
    assert not Path("here/result.json").exists()


def test_what_a_killed_sweep_leaves_is_found_and_removed(tmp_path: Path) -> None:
    root = tmp_path / OUTCOMES
    dead, alive = root / "0dead", root / "alive"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        Outcome("started", 0, "started").write(folder)
    Outcome("done", 1, "completed").write(dead)
    (dead / "2.json").write_text("{half")
    with directory_lock(alive), sweep._folder(tmp_path) as (folder, suspects):
        assert suspects == {"started"}
        assert {entry.name for entry in root.iterdir()} == {"alive", folder.name}
    assert {entry.name for entry in root.iterdir()} == {"alive"}


# -- the display -------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_counts_what_is_done_and_not_what_was_done_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    watch = Watch(tmp_path, 6, {"seed"}, clock)
    assert watch.left() is None
    place = "multirun/0123abcd"
    job = Outcome(str(Path(place).absolute()), 0, "started", overrides=("n=4", "seed=0"))
    replace(job, number=5, status="completed", value=0.5, fraction=1.0, earlier=True).write(tmp_path)
    job.write(tmp_path)
    watch.read()
    assert watch.left() is None
    clock.now = 10.0
    replace(job, fraction=0.5).write(tmp_path)
    watch.read()
    assert watch.left() == pytest.approx(10 / 0.5 * 4.5)
    clock.now = 20.0
    replace(job, status="failed", error="why", seconds=20.0, fraction=1.0).write(tmp_path)
    replace(job, number=1, status="completed", value=0.75, seconds=20.0, fraction=1.0).write(tmp_path)
    assert [outcome.number for outcome in watch.read()] == [0, 1, 5]
    assert watch.left() == pytest.approx(20 / 2 * 3)
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == f"1/6  earlier  accuracy 0.5000  seed=0  {place}"
    assert rest[0].startswith(f"2/6  failed  20.0 s  seed=0  {place}  (1:")
    assert rest[1] == f"3/6  completed  accuracy 0.7500  20.0 s  seed=0  {place}  (0:30 left)"


def test_a_sweep_of_unknown_length_promises_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(tmp_path, None)
    Outcome("run", 0, "completed", value=0.5, seconds=1.0, fraction=1.0).write(tmp_path)
    watch.read()
    assert watch.left() is None
    assert capsys.readouterr().err == "1/?  completed  accuracy 0.5000  1.0 s  run\n"


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        ({"metric": "rmse", "value": 1.23456}, "  rmse 1.235"),
        ({"metric": "rmse", "value": 12345.6}, "  rmse 12346"),
        ({"metric": "mae_weight", "value": 0.000123456}, "  mae_weight 0.0001235"),
        ({"metric": "r2", "value": -0.25, "part": "validation"}, "  validation r2 -0.2500"),
        ({"metric": "roc_auc", "value": None}, ""),
    ],
)
def test_a_line_has_the_metric_that_ranks(
    measured: dict[str, Any], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Outcome("run", 0, "completed", seconds=1.0, fraction=1.0, **measured).write(tmp_path)
    Watch(tmp_path, 1).read()
    assert capsys.readouterr().err == f"1/1  completed{shown}  1.0 s  run\n"


def test_on_a_terminal_there_is_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    clock = Clock()
    with Watch(tmp_path, 4, frozenset(), clock) as watch:
        Outcome("run", 0, "started").write(tmp_path)
        watch.read()
        clock.now = 5.0
        Outcome("[bold]run[/bold]", 0, "failed", "why", seconds=5.0, fraction=1.0).write(tmp_path)
        watch.read()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "1/4  failed  5.0 s  [bold]run[/bold]" in text
    assert re.search(r"jobs 1/4 .*1 failed +0:15 left", text)


@pytest.mark.exhaustive
def test_a_sweep_shows_each_job_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-m", *DATA, "fusion=concatenation", "seed=0,1,2"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("  ")[0] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all(
        re.search(r"completed  accuracy \d\.\d{4}  \d+\.\d s  seed=\d  multirun/[0-9a-f]+", line) for line in lines
    )
    assert re.search(r"\(\d:\d\d left\)$", lines[0])
