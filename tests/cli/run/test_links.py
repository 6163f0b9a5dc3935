"""Links in a run's or a sweep's directory: nothing is written or deleted through them, nothing that no sweep made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.exhaustive import exhaustive

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with folders and files in it, which are the same afterwards."""
    folder = tmp_path_factory.mktemp("elsewhere")
    names = ("0dead/0.json", "0dead/notes.txt", "config.yaml", "overrides.yaml", "hydra.yaml", "result.json")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    yield folder
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(names)
    assert all((folder / name).read_text() == "mine" for name in names)


@pytest.mark.parametrize("name", [".outcomes", "multirun.yaml"])
def test_a_link_in_place_of_a_file_of_a_sweep_is_refused(
    name: str, run: Run, trained: list[dict[str, Any]], elsewhere: Path
) -> None:
    Path("multirun").mkdir()
    Path("multirun", name).symlink_to(elsewhere if name == ".outcomes" else elsewhere / "config.yaml")
    status, _, err = run("-m", "seed=0,1")
    assert status == 1
    assert f"{name} should be a plain file or folder, because runs write there; found a link to {elsewhere}" in err
    assert trained == []
    assert [path.name for path in Path("multirun").iterdir()] == [name]


def test_a_pipe_in_place_of_a_file_of_a_sweep_is_refused(run: Run, trained: list[dict[str, Any]]) -> None:
    Path("multirun").mkdir()
    os.mkfifo("multirun/multirun.yaml")
    assert "found a pipe or a device" in run("-m", "seed=0,1")[2]


def test_only_outcomes_are_removed_among_those_of_killed_sweeps(
    run: Run, trained: list[dict[str, Any]], elsewhere: Path
) -> None:
    mine = Path("multirun/.outcomes/mine/0.json.d/notes.txt")
    mine.parent.mkdir(parents=True)
    mine.write_text("")
    Path("multirun/.outcomes/link").symlink_to(elsewhere)
    assert run("-m", "seed=0,1")[0] == 0
    assert mine.exists()
    assert Path("multirun/.outcomes/link").is_symlink()


def test_the_directory_of_a_job_may_not_be_a_link(run: Run, trained: list[dict[str, Any]], elsewhere: Path) -> None:
    run("-m", "seed=0,1", "hydra.sweep.dir=first")
    name = next(path.name for path in Path("first").iterdir() if path.is_dir())
    Path("real").mkdir()
    Path("multirun").symlink_to("real")  # The directory of a sweep may be one.
    Path("multirun", name).symlink_to(elsewhere)
    status, out, err = run("-m", "seed=0,1")
    assert status == 1
    assert "1 completed, 1 failed" in out
    assert f"{name} should be a plain file or folder, because runs write there; found a link to {elsewhere}" in err


@pytest.mark.parametrize("sweep", [False, True])
def test_the_folder_of_configs_may_not_be_a_link(
    sweep: bool, run: Run, trained: list[dict[str, Any]], elsewhere: Path
) -> None:
    Path("a/b").mkdir(parents=True)
    Path("a/b/.hydra").symlink_to(elsewhere)
    where = ["-m", "hydra.sweep.dir=a", "hydra.sweep.subdir=b"] if sweep else ["hydra.run.dir=a/b"]
    status, _, err = run("seed=0", *where)
    assert status == 1
    assert ".hydra should be a plain file or folder, because runs write there; found a link to" in err


@pytest.mark.parametrize("sweep", [False, True])
def test_a_link_in_the_folder_of_configs_is_replaced(
    sweep: bool, run: Run, trained: list[dict[str, Any]], elsewhere: Path
) -> None:
    Path("a/b/conf").mkdir(parents=True)
    for name in ("config", "hydra", "overrides"):
        Path("a/b/conf", f"{name}.yaml").symlink_to(elsewhere / f"{name}.yaml")
    where = ["-m", "hydra.sweep.dir=a", "hydra.sweep.subdir=b"] if sweep else ["hydra.run.dir=a/b"]
    assert run("seed=3", *where, "hydra.output_subdir=conf")[0] == 0
    assert "seed: 3" in Path("a/b/conf/config.yaml").read_text()
    assert "output_subdir: conf" in Path("a/b/conf/hydra.yaml").read_text()
    assert "- seed=3" in Path("a/b/conf/overrides.yaml").read_text()


def test_no_folder_of_configs_where_it_is_null(run: Run, trained: list[dict[str, Any]]) -> None:
    assert run("hydra.run.dir=a", "hydra.output_subdir=null")[0] == 0
    assert not [path for path in Path("a").iterdir() if path.is_dir()]


@pytest.mark.parametrize("target", ["config.yaml", *exhaustive(["new.log"])])
@pytest.mark.parametrize("sweep", [False, True])
def test_a_log_file_may_not_be_a_link(
    run: Run, trained: list[dict[str, Any]], elsewhere: Path, sweep: bool, target: str
) -> None:
    argv = ["-m", "hydra.sweep.subdir=job", "hydra.sweep.dir=a"] if sweep else ["hydra.run.dir=a/job"]
    before = sorted(elsewhere.iterdir()), (elsewhere / "config.yaml").read_bytes()
    Path("a/job").mkdir(parents=True)
    Path("a/job/fusionkit.log").symlink_to(elsewhere / target)
    status, out, err = run(*argv, "hydra/job_logging=default")
    assert status == 1
    assert "fusionkit.log should be a plain file or folder, because runs write there; found a link to" in out + err
    assert (sorted(elsewhere.iterdir()), (elsewhere / "config.yaml").read_bytes()) == before
    assert trained == []
    Path("a/job/fusionkit.log").unlink()
    assert run(*argv, "hydra/job_logging=default")[0] == 0
