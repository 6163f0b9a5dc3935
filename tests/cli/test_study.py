from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusionkit import ConfigError
from fusionkit.cli.study import main
from fusionkit.experiment.leaderboard import read_board

SMALL = ["--quick", "--data", "breast_cancer", "--folds", "2", "--set", "train.epochs=1", "--workers", "1"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a study that has run."""
    directory = tmp_path_factory.mktemp("benchmark")
    assert main([*SMALL, "--out", str(directory)]) == 0
    return directory


def test_files(study: Path) -> None:
    found = json.loads((study / "benchmark.json").read_text())
    assert found["schema_version"] == 1
    assert found["command"].startswith("fusionkit benchmark --quick --data breast_cancer --folds 2")
    assert found["settings"]["folds"] == 2
    assert len(found["rows"]) == 8
    assert found["trainings"] == 16
    assert found["failed"] == found["left_out"] == []
    assert found["provenance"]["versions"]["torch"]
    for name in ("accuracy.png", "robustness.png"):
        assert (study / name).read_bytes().startswith(b"\x89PNG")
    text = (study / "benchmark.md").read_text()
    assert "### breast_cancer" in text
    assert f"Made by `{found['command']}`." in text


@pytest.mark.exhaustive
def test_again_trains_nothing_and_says_the_same(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((study / "benchmark.json").read_text())["rows"]
    assert main([*SMALL, "--out", str(study), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["rows"] == before
    assert shown.err == "16 of 16 trainings done\n"


def test_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--out", str(study)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["data", "contestant", "l"]
    assert sum(line.startswith("breast_cancer") for line in lines) == 8


def test_the_leaderboard_reads_a_study(study: Path) -> None:
    groups = {group.runs[0].fabrication: group for group in read_board(study).groups}
    assert [len(group.runs) for group in groups.values()] == [2] * 6
    rows = {row["name"]: row for row in json.loads((study / "benchmark.json").read_text())["rows"]}
    row, group = rows["lowrank r=2"], groups["lowrank (r=2)"].to_dict()
    assert (group["accuracy"], group["low"], group["high"]) == pytest.approx((row["mean"], row["low"], row["high"]))


@pytest.mark.exhaustive
def test_progress_has_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--out", str(tmp_path), "--add", "n=8 fabrication=dense"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "0 of 18 trainings done"
    assert err[-1] == "18 of 18 trainings done, 0:00 min left"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--folds", "1"], "--folds should be an integer of at least 2; found '1'"),
        (["--repeats", "x"], "--repeats should be an integer of at least 1; found 'x'"),
        (
            ["--data", "mfaet"],
            "--data should be one of mfeat, digits, breast_cancer; found 'mfaet'.",
        ),
        (
            ["--quick", "--data", "digits", "--add", "fabrication=lowrank fabrication.r=999"],
            "fusion.parameter_fabrication.r, the rank of lowrank, should be from 1 to min(n, D) = 64 for n = 64 and "
            "D = 64; found 999.",
        ),
        (["--workers", "0"], "--workers should be an integer of at least 1; found '0'"),
    ],
)
def test_wrong_usage(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        main(arguments)
    assert str(caught.value).startswith(sentence)


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "fusionkit benchmark --quick" in capsys.readouterr().out
