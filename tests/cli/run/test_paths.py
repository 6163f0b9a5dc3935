"""Paths and files of users: odd characters, other folders, other encodings."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionkit import cli
from tests.cli.run.records import record
from tests.exhaustive import exhaustive

Run = Callable[..., tuple[int, str, str]]
QUICK = ("train.epochs=1", "n=4")


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("~/h.npz", """'data.path="~/h.npz"'"""),
        ("data (1).npz", """'data.path="data (1).npz"'"""),
        ("run#1.npz", """'data.path="run#1.npz"'"""),
    ],
)
def test_a_value_that_needs_quotes_is_said_with_them(path: str, written: str, run: Run) -> None:
    status, _, err = run("data=npz", f"data.path={path}")
    assert status == 2
    assert f"The value of data.path should be in quotes, because of its special characters; write {written}." in err


@pytest.mark.parametrize("path", ["data (1).npz", *exhaustive(["~/views.npz", "run#1.npz"])])
def test_a_quoted_path_is_read(
    path: str, run: Run, trained: list[dict[str, Any]], views: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    Path(views).rename(path.replace("~/", ""))
    assert run("data=npz", f'data.path="{path}"', 'hydra.run.dir="~/out"')[0] == 0
    assert trained[0]["data"]["path"] == str(Path(path.replace("~/", "")).absolute())
    assert Path("out/result.json").is_file()
    assert run("-m", "seed=0,1", 'hydra.sweep.dir="~/sweep"')[0] == 0
    assert len(list(Path("sweep").glob("*/result.json"))) == 2


@pytest.mark.parametrize("sweep", [True, *exhaustive([False])])
def test_a_relative_path_is_that_of_the_folder_of_the_command(
    sweep: bool, run: Run, views: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["-m", "hydra.sweep.dir=a", "hydra.sweep.subdir=b"] if sweep else ["hydra.run.dir=a/b"]
    assert run("data=npz", f"data.path={views}", "hydra.job.chdir=true", *QUICK, *where)[0] == 0
    assert record("a/b/result.json")["status"] == "completed"
    monkeypatch.chdir("a")
    status, out, err = run("--from", "b", "hydra.run.dir=again")
    assert (status, err.count("error")) == (0, 0)
    assert "the same as b, bit for bit" in out


@pytest.mark.parametrize("group", ["experiment", "my/experiments"])
def test_an_experiment_without_its_package_is_named(group: str, run: Run) -> None:
    Path("conf", group).mkdir(parents=True)
    Path("conf", group, "mine.yaml").write_text("seed: 3\n")
    status, _, err = run("--config-dir", "conf", f"+{group}=mine")
    assert status == 2
    assert f"The config {group}/mine should begin with the line '# @package _global_', because" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            codecs.BOM_UTF8 + b"# @package _global_\nseed: 3\n",
            "should be in UTF-8 without a byte order mark; found one.",
        ),
        ("# @package _global_\n# café\n".encode("latin-1"), "should be in UTF-8; found the byte 0xe9 in line 2."),
        ("# @package _global_\nseed: 3\n".encode("utf-16"), "should be in UTF-8; found the byte 0xff in line 1."),
    ],
)
def test_an_experiment_in_another_encoding_is_named(content: bytes, message: str, run: Run) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_bytes(content)
    status, _, err = run("--config-dir", "conf", "+experiment=mine")
    assert status == 2
    assert f"experiment/mine {message}" in err


def test_a_folder_of_configs_may_begin_with_a_tilde(
    run: Run, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# @package _global_\nseed: 3\n")
    assert cli.main(["run", "--config-dir=~/conf", "+experiment=mine"]) == 0
    assert trained[0]["seed"] == 3
