"""Sweeps of ``fusionkit run -m``."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionkit import cli
from fusionkit.config import config_hash
from tests.cli.run.records import only
from tests.exhaustive import exhaustive
from tests.fake_distributions import Site


def test_a_sweep_names_directories_by_hash_and_skips_what_is_completed(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    assert run("-m", "fusion=concatenation,parameterized_concatenation", "seed=0")[0] == 0
    assert len(trained) == 2
    folders = {folder.name for folder in Path("multirun").iterdir() if folder.is_dir()}
    assert folders == {config_hash(cfg) for cfg in trained}
    status, out, err = run("-m", "seed=1,0", "fusion=concatenation,parameterized_concatenation")
    assert status == 0
    assert re.fullmatch(
        r"4 jobs in 0:\d\d: 4 completed \(2 of them earlier\); .*: fusionkit leaderboard multirun\n", out
    )
    assert err.count("  earlier  accuracy 0.5000  seed=") == 2
    assert len(trained) == 4
    assert {cfg["seed"] for cfg in trained[2:]} == {1}


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
    (names[2] / "model.safetensors").write_bytes(b"")
    assert run("-m", "seed=0,1,2")[0] == 0
    assert [cfg["seed"] for cfg in trained] == [0, 1, 2, 0, 1, 2]


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
        (["hydra.run.dir=a,b"], "A sweep should not change the hydra node; found 'hydra.run.dir=a,b'."),
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


def test_an_operator_that_replaces_the_resolver_of_names_does_not_merge_the_jobs(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]], site: Site
) -> None:
    source = """
        import warnings
        from omegaconf import OmegaConf
        from fusionkit.fusions.concatenation import Concatenation
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OmegaConf 2.4 calls it deprecated.
            OmegaConf.register_new_resolver("fusionkit.run_name", lambda *_, **__: "same", replace=True)
        class Odd(Concatenation):
            pass
    """
    (site.folder / "odd_operator.py").write_text(textwrap.dedent(source))
    site.fusions("odd-operators", {"odd": "odd_operator:Odd"})
    assert run("-m", "fusion=odd", "seed=0,1")[0] == 0
    assert len({folder.name for folder in Path("multirun").iterdir() if folder.is_dir()}) == 2


@pytest.mark.parametrize(
    ("line", "directory"),
    [
        (["seed=0,1", "hydra.sweep.subdir=same"], "same"),
        (["device=cpu,cuda", "hydra.sweep.subdir='x${fusionkit.run_name:}'"], "x"),
        *exhaustive([(["fusion=average,concatenation", "seed=0,1", "hydra.sweep.subdir='s${seed}'"], "s0")]),
    ],
)
def test_jobs_that_share_a_directory_are_refused_before_the_first(
    line: list[str], directory: str, run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    status, _, err = run("-m", *line)
    assert status == 2
    assert f"hydra.sweep.subdir should be another for each job; found '{directory}" in err
    assert trained == []
    assert list(Path.cwd().iterdir()) == []


def test_jobs_may_be_numbered_or_named_by_their_keys(
    run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    assert run("-m", "seed=0,1", "hydra.sweep.subdir='${hydra.job.num}'")[0] == 0
    assert run("-m", "seed=0,1,0", "hydra.sweep.subdir='s${seed}'", "hydra.sweep.dir=b")[0] == 0
    assert [cfg["seed"] for cfg in trained] == [0, 1, 0, 1]


@pytest.mark.parametrize("edited", ["edited_base", *exhaustive(["edited_operator"])])
def test_a_job_is_run_again_after_the_source_of_its_operator_changed(
    edited: str, run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]], site: Site
) -> None:
    base = "from fusionkit.fusions.concatenation import Concatenation\nclass Base(Concatenation):\n    pass\n"
    (site.folder / "edited_base.py").write_text(base)
    operator = "import edited_base\nclass Edited(edited_base.Base):\n    pass\n"
    (site.folder / "edited_operator.py").write_text(operator)
    site.fusions("edited-operators", {"edited": "edited_operator:Edited"})
    line = ("-m", "fusion=edited,concatenation", "seed=0,1")
    run(*line)
    assert "4 of them earlier" in run(*line)[1]
    with (site.folder / f"{edited}.py").open("a") as file:
        file.write("# another\n")
    assert "2 of them earlier" in run(*line)[1]
    assert len(trained) == 6


@pytest.mark.parametrize("fusion", ["lowrank_parameterized_concatenation", *exhaustive(["concatenation"])])
def test_a_combination_that_cannot_be_is_listed_and_not_run(
    fusion: str, run: Callable[..., tuple[int, str, str]], trained: list[dict[str, Any]]
) -> None:
    line = (f"fusion={fusion},parameterized_concatenation", "fabrication=dense,monarch")
    status, out, err = run("-m", *line)
    assert status == 0
    assert "4 jobs in " in out
    assert "3 completed, 1 not applicable;" in out
    assert f"2/4  not applicable  fusion={fusion} fabrication=monarch" in err
    assert f"not applicable: fusion={fusion} fabrication=monarch: fabrication should be " in err
    assert "error" not in err
    assert len(trained) == len([path for path in Path("multirun").iterdir() if path.is_dir()]) == 3
    assert run(f"fusion={fusion}", "fabrication=monarch")[0] == 2


def test_a_sweep_over_the_head(
    run: Callable[..., tuple[int, str, str]], views: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("data=npz", f"data.path={views}", "train.epochs=1", "train.batch_size=16", "hydra.sweep.dir=heads")
    status, _, err = run("-m", *options, "model.head=none,linear", "fusion=concatenation,parameterized_concatenation")
    assert status == 1
    assert "error: 1 of 4 jobs failed:\n" in err
    assert "The output of 'concatenation' should have the width 3," in err
    found = [json.loads(file.read_text()) for file in Path("heads").glob("*/result.json")]
    completed = [one for one in found if one["status"] == "completed"]
    assert sorted((one["config"]["model"]["head"], one["n"]) for one in completed) == [
        ("linear", 7),
        ("linear", 64),
        ("none", 3),
    ]
    assert cli.main(["leaderboard", "heads", "--csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert ["model.head=none" in row for row in rows].count(True) == 1
    assert len(rows) == 4


def test_a_job_draws_its_pictures_when_they_are_asked_for(run: Callable[..., tuple[int, str, str]], views: str) -> None:
    assert run("-m", "data=npz", f"data.path={views}", "n=5", "train.epochs=1", "seed=0")[0] == 0
    folder = only("multirun/*/result.json").parent
    names = {"result.json", "model.safetensors", "rows.npz", ".hydra"}
    assert {file.name for file in folder.iterdir()} == names
    assert cli.main(["show", str(folder)]) == 0
    assert {file.name for file in folder.iterdir()} == {*names, "curve.png", "views.png"}
