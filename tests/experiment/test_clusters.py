"""Sweeps on a cluster that is running: Ray and SLURM, and what becomes of a job whose worker is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusionkit.experiment.run
from fusionkit import cli
from fusionkit.config.options import RunConfig
from fusionkit.experiment import job
from fusionkit.experiment.job import Outcome
from fusionkit.experiment.sweep import OUTCOMES
from tests.clusters import SLURM_PROGRAMS, ray_cluster, slurm_cluster
from tests.fake_distributions import Site

KILLED = "found an end by SIGKILL."
LOST = "The worker of a job should live until the job ends; found 2 that were lost."
DATA = ("data=npz", "data.path=views.npz", "train.epochs=2", "train.batch_size=16", "n=4")


@pytest.fixture(autouse=True)
def _place(empty_directory: None, arrays: dict[str, Any]) -> None:
    np.savez("views.npz", **arrays)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path: that of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="cl", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def _hostile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install operators that end their process, for the workers too."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site.folder), str(Path(__file__).parents[2])]))
    names = ("dies", "fells", "roams")
    site.fusions("fusionkit-hostile", {name: f"tests.experiment.hostile:{name.capitalize()}" for name in names})


def sweep(lost: dict[str, str], *options: str, env: dict[str, str] | None = None) -> None:
    """Run four jobs, of which those that lose their workers should fail with these ends of sentences."""
    right = ["concatenation", "parameterized_concatenation", "roams"][: 4 - len(lost)]
    argv = [sys.executable, "-m", "fusionkit", "run", "-m", *DATA, f"fusion={','.join([*lost, *right])}", *options]
    found = subprocess.run(argv, env=env, check=False, capture_output=True, text=True, timeout=400)
    assert found.returncode == 1, found.stdout + found.stderr
    counts = f"{len(right)} completed, {len(lost)} failed"
    assert re.search(rf"4 jobs in \d:\d\d: {counts}; compare them by", found.stdout), found.stdout
    records = {record["fusion"]: record for record in map(json.loads, _results())}
    assert {name for name, record in records.items() if record["status"] == "completed"} == set(right)
    for name, error in lost.items():
        assert records[name]["error"].endswith(error)
    assert not Path("multirun", OUTCOMES).exists()


def _results() -> Iterator[str]:
    yield from (file.read_text() for file in Path("multirun").glob("*/result.json"))


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_hostile")
def test_a_sweep_on_a_ray_cluster_that_is_running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # A token that Ray wrote for another cluster may be in the home.
    with ray_cluster(folder) as address:
        sweep({"dies": KILLED, "fells": LOST}, "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}")


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_hostile")
def test_a_sweep_on_slurm(folder: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    if missing := [name for name in SLURM_PROGRAMS if shutil.which(name, path=path) is None]:
        pytest.skip(f"needs Debian's munge, slurmctld, slurmd and slurm-client; {', '.join(missing)} not found")
    with slurm_cluster(folder) as env:
        options = ["hydra.launcher.partition=tiny", "hydra.launcher.timeout_min=5"]
        sweep({"dies": KILLED}, "hydra/launcher=submitit_slurm", *options, env=env)
        jobs = subprocess.check_output(["squeue", "--noheader", "--states=all", "--array"], env=env, text=True)
        assert len(jobs.splitlines()) == 8  # Those of the second round find that all but one have ended.


def test_the_command_line_says_where_and_how_long_slurm_runs_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    for name, script in {
        "srun": "exit 0",
        "sbatch": f"cp $1 {tmp_path}/script; echo no such partition >&2; exit 1",
    }.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    options = {"partition": "big", "account": "mine", "timeout_min": 30, "mem_gb": 2, "array_parallelism": 8}
    line = [f"hydra.launcher.{key}={value}" for key, value in options.items()]
    argv = ["run", "-m", *DATA, "fusion=concatenation", "seed=0,1,2,3", "hydra/launcher=submitit_slurm", *line]
    assert cli.main(argv) == 1
    assert re.search(r"error: The sweep should come to its end; found .*no such partition", capsys.readouterr().err)
    flags = set(re.findall(r"#SBATCH --(\S+)", (tmp_path / "script").read_text()))
    assert flags >= {"partition=big", "account=mine", "time=30", "mem=2GB", "array=0-3%4"}


def test_the_address_of_a_ray_cluster_comes_without_a_size_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = pytest.importorskip("hydra_plugins.hydra_ray_launcher.ray_launcher")
    found = []

    def launch(self: Any, *_: Any, **__: Any) -> list[Any]:
        found.append(dict(self.ray_cfg.init))
        return []

    monkeypatch.setattr(launcher.RayLauncher, "launch", launch)
    line = ["run", "-m", *DATA, "fusion=concatenation", "seed=0,1", "hydra/launcher=ray"]
    address, memory = "hydra.launcher.ray.init.address=10.0.0.1:6379", "hydra.launcher.ray.init.object_store_memory"
    for options in ([], [address], [address, f"+{memory}=8"]):
        cli.main([*line, *options])
    where = {"address": "10.0.0.1:6379"}
    assert found == [{"address": None}, {**where, "object_store_memory": None}, {**where, "object_store_memory": 8}]


def test_a_job_whose_worker_is_lost_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        tried.append(f"here {config.seed}")
        return {"status": "completed", "metrics": {"accuracy": 0.5}}

    def run_alone(cfg: dict[str, Any], run_dir: Path) -> dict[str, Any]:
        tried.append(f"alone {cfg['seed']}")
        return {"status": "completed", "metrics": {"accuracy": 0.5}}

    def write(self: Outcome, folder: Path) -> None:
        if self.number == 0 and self.status == "completed":
            raise RuntimeError("The worker is lost.")
        known(self, folder)

    known = Outcome.write
    monkeypatch.setattr(Outcome, "write", write)
    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    monkeypatch.setattr(job, "_run_alone", run_alone)
    assert cli.main(["run", "-m", *DATA, "fusion=concatenation", "seed=0,1"]) == 1
    out, err = capsys.readouterr()
    assert tried == ["here 0", "here 1", "alone 0"]
    assert ": 1 completed, 1 failed; " in out
    assert f"seed=0: {LOST}" in err
    (record,) = map(json.loads, _results())
    assert (record["status"], record["error"]) == ("failed", LOST)
