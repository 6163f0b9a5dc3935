"""Parallel sweeps; each test needs the launcher it is about."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusionkit
from fusionkit import cli, registry
from fusionkit.config import hydra_node
from fusionkit.config.hydra_bridge import BASIC_LAUNCHER, BASIC_SWEEPER


@pytest.fixture
def views() -> list[str]:
    generator = np.random.default_rng(0)
    label = np.arange(60) % 3
    np.savez(
        "views.npz", a=np.eye(3)[label] + 0.1 * generator.standard_normal((60, 3)), b=np.eye(3)[label], label=label
    )
    return ["data=npz", f"data.path={Path('views.npz').absolute()}", "train.epochs=2", "n=4"]


@pytest.mark.usefixtures("fresh_workers")
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_in_other_processes_records_checks_and_skips(
    views: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    line = ["run", "-m", *views, "fusion=concatenation,summation", "dims=null,[3,4]", "hydra/launcher=joblib"]
    assert cli.main([*line, "hydra.launcher.n_jobs=2"]) == 1
    err = capsys.readouterr().err
    assert "error: 2 of 4 jobs failed:" in err
    records = [json.loads(file.read_text()) for file in Path("multirun").glob("*/result.json")]
    assert sorted(record["status"] for record in records) == ["completed", "completed", "failed", "failed"]
    times = {file: file.stat().st_mtime_ns for file in Path("multirun").glob("*/model.safetensors")}
    assert cli.main([*line, "hydra.launcher.n_jobs=2"]) == 1
    assert {file: file.stat().st_mtime_ns for file in Path("multirun").glob("*/model.safetensors")} == times


@pytest.mark.filterwarnings("ignore")
def test_an_optuna_study_goes_on_after_a_failure(views: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    line = ["fusion=summation,concatenation", "dims=null", "train.lr=interval(0.01,0.1)", "hydra.sweeper.n_trials=3"]
    assert cli.main(["run", "-m", *views, "hydra/sweeper=optuna", *line]) == 0
    records = [json.loads(file.read_text()) for file in Path("multirun").glob("*/result.json")]
    assert len(records) == 3
    best = max(record["metrics"]["accuracy"] for record in records if record["status"] == "completed")
    assert f"best_value: {best}\n" in Path("multirun/optimization_results.yaml").read_text()
    evil = ["hydra.sweeper.sampler._target_=os.system"]
    assert cli.main(["run", "-m", *views, "hydra/sweeper=optuna", *line, *evil]) == 2
    assert "hydra.sweeper.sampler._target_ should be a class of optuna.samplers" in capsys.readouterr().err


def test_no_config_writes_a_line_of_a_batch_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slurm = pytest.importorskip("submitit.slurm.slurm")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    evil = "x\ntouch y\n#"
    for options in ({"comment": evil}, {"additional_parameters": {evil: 1}}, {"setup": ["touch y"]}):
        script = slurm._make_sbatch_string(command="true", folder=tmp_path, **options)
        assert "touch y" in script.splitlines()
        (tmp_path / "experiment").mkdir(exist_ok=True)
        node = {"hydra": {"launcher": options}}
        (tmp_path / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{json.dumps(node)}\n")
        argv = ["--config-dir", str(tmp_path), "hydra/launcher=submitit_slurm", "+experiment=evil", "seed=0,1"]
        assert cli.main(["run", "-m", *argv]) == 2
        assert f"error: hydra.launcher.{next(iter(options))}" in capsys.readouterr().err


def test_what_only_this_process_knows_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Gram(fusionkit.Fusion):
        def calculate_n(self, dims: Any = None) -> int:
            return self.resolve_dims(dims)[0]

        def calculate_l(self) -> int:
            return 0

        def _fuse(self, x: Any) -> Any:
            return x[0]

    module = types.ModuleType("my_local_plugin")
    module.fusionkit_fusions = fusionkit.hookimpl(lambda: {"gram": Gram})  # type: ignore[attr-defined]
    module.fusionkit_fusions.__name__ = "fusionkit_fusions"
    monkeypatch.setattr(hydra_node, "_discovered", lambda kind: ["hydra_plugins.x.X", BASIC_LAUNCHER, BASIC_SWEEPER])
    folder = tmp_path / "mine" / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text("_target_: hydra_plugins.x.X\n")
    with registry.isolated(module):
        argv = ["run", "-m", "--config-dir", str(tmp_path / "mine"), "hydra/launcher=x", "fusion=gram,average"]
        status = cli.main(argv)
    err = capsys.readouterr().err
    assert status in (1, 2)
    assert "X" in err
    assert list(Path.cwd().iterdir()) == []


def test_a_job_with_a_local_operator_does_not_compose_for_another_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from fusionkit.config.composition import _check_workers
    from fusionkit.errors import ConfigError

    cfg = fusionkit.config.compose(["fusion=average"])
    _check_workers(cfg, "hydra_plugins.x.X", sweep=True)
    resolve = registry.resolve
    monkeypatch.setattr(registry, "resolve", lambda kind, name: replace(resolve(kind, name), local=True))
    with pytest.raises(ConfigError, match=r"found the fusion 'average', which was registered in this process\."):
        _check_workers(cfg, "hydra_plugins.x.X", sweep=True)
    _check_workers(cfg, "hydra_plugins.x.X", sweep=False)
    _check_workers(cfg, BASIC_LAUNCHER, sweep=True)
