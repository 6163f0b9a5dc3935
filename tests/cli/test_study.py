from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fusionkit import ConfigError, cli
from fusionkit.experiment.leaderboard import read_board

SMALL = ["--quick", "--data", "breast_cancer", "--folds", "2", "--set", "train.epochs=1", "--workers", "1"]


def main(argv: list[str]) -> int:
    return cli.main(["study", *argv])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a study that has run."""
    directory = tmp_path_factory.mktemp("study")
    assert main([*SMALL, "--out", str(directory)]) == 0
    return directory


def test_files(study: Path) -> None:
    found = json.loads((study / "study.json").read_text())
    assert found["schema_version"] == 1
    assert found["command"].startswith("fusionkit study --quick --data breast_cancer --folds 2")
    assert found["settings"]["folds"] == 2
    assert len(found["rows"]) == 8
    assert [row["name"] for row in found["missing"]] == ["dense", "summation", "logistic_regression", "rbf_svm"]
    assert found["trainings"] == 2 * (8 + 2)
    assert found["failed"] == found["left_out"] == []
    assert found["provenance"]["versions"]["torch"]
    for name in ("accuracy.png", "robustness.png", "missing.png"):
        assert (study / name).read_bytes().startswith(b"\x89PNG")
    text = (study / "study.md").read_text()
    assert text.count("### breast_cancer") == 2
    assert "## Missing views" in text
    assert f"Made by `{found['command']}`." in text


@pytest.mark.exhaustive
def test_again_trains_nothing_and_reports_the_same(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((study / "study.json").read_text())["rows"]
    assert main([*SMALL, "--out", str(study), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["rows"] == before
    assert shown.err == "20 of 20 trainings done\n"


def test_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--out", str(study)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["data", "contestant", "l"]
    table, missing = lines[: lines.index("")], lines[lines.index("") :]
    assert sum(line.startswith("breast_cancer") for line in table) == 8
    assert missing[1] == "accuracy by the rate of missing views, without → with view dropout (p)"
    assert missing[2].split() == ["data", "contestant", "folds", "0", "0.1", "0.3", "0.5", "0.7"]
    assert sum(line.startswith("breast_cancer") for line in missing) == 4


def test_the_leaderboard_reads_a_study(study: Path) -> None:
    groups = {group.runs[0].fabrication: group for group in read_board(study).groups}
    assert [len(group.runs) for group in groups.values()] == [2] * 6
    rows = {row["name"]: row for row in json.loads((study / "study.json").read_text())["rows"]}
    row, group = rows["lowrank r=2"], groups["lowrank (r=2)"].to_dict()
    assert group["accuracy"] == pytest.approx(row["mean"])
    # One fold has a row more, and either may be the first.
    assert (group["low"], group["high"]) == pytest.approx((row["low"], row["high"]), abs=1e-3)


@pytest.mark.exhaustive
def test_progress_has_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--out", str(tmp_path), "--add", "n=8 fabrication=dense"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "0 of 24 trainings done"
    assert err[-1] == "24 of 24 trainings done  0:00 left"


@pytest.mark.exhaustive
def test_the_former_name_continues_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["benchmark", *SMALL, "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[0] == "warning: the command 'benchmark' is deprecated: use 'study'."
    assert json.loads(Path("benchmark/benchmark.json").read_text())["rows"] == json.loads(shown.out)["rows"]
    assert not Path("study").exists()
    assert cli.main(["--help"]) == 0
    assert "benchmark" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--folds", "1"], "Invalid value for '--folds': 1 is not in the range x>=2."),
        (["--repeats", "x"], "Invalid value for '--repeats': 'x' is not a valid integer range."),
        (["--data", "mfaet"], "one that 'fusionkit list' shows; found 'mfaet'. Did you mean 'mfeat'?"),
        (["--data", "diabetes"], "should be for classification; found diabetes, a regression. fusionkit study --sets"),
        (
            ["--sets", "--missing", "--repeats", "2"],
            "--sets should be without --missing and --repeats, which the study of accuracy has.",
        ),
        (["--sets", "--data", "digits=x.npz"], "There is no key 'data.path' here."),
        (
            ["--quick", "--data", "digits", "--add", "fabrication=lowrank fabrication.r=999"],
            "fusion.parameter_fabrication.r, the rank of lowrank, should be from 1 to min(n, D) = 64 for n = 64 and "
            "D = 64; found 999.",
        ),
        (["--workers", "0"], "Invalid value for '--workers': 0 is not in the range x>=1."),
    ],
)
def test_wrong_usage(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_several_data_sets_may_follow_one_option(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def plan(directory: Path, *, data: list[str], **settings: Any) -> Any:
        seen.append(data)
        raise ConfigError("enough")

    monkeypatch.setattr("fusionkit.cli.study_run.plan", plan)
    for arguments in (["--data", "mfeat", "digits"], ["--data", "mfeat", "--data", "digits"], []):
        assert main(arguments) == 2
    assert seen == [["mfeat", "digits"], ["mfeat", "digits"], ["mfeat", "digits", "breast_cancer"]]


def test_the_table_of_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sets", "breast_cancer", "diabetes", "--add", "n=8", "--folds", "2", "--workers", "1"]
    arguments = [*words, "--set", "train.epochs=1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].startswith("16 of 16 trainings done")
    header, first, second, *files = shown.out.splitlines()
    names = ["data", "metric", "rows", "views", "test part", "default", "n=8", "linear", "RBF SVM"]
    assert re.split(r"  +", header) == names
    assert re.split(r"  +", first)[:5] == ["breast_cancer", "accuracy", "569", "3 of 10", "2 folds"]
    assert re.split(r"  +", second)[:5] == ["diabetes", "r2", "442", "4 + 6", "2 folds"]
    assert all(re.fullmatch(r"-?\d\.\d{4} ± \d\.\d{4}", cell) for cell in re.split(r"  +", second)[5:])
    assert [Path(line.split()[-1]).name for line in files] == ["sets.json", "sets.md"]
    found = json.loads((tmp_path / "out/sets.json").read_text())
    assert found["settings"]["data"] == ["breast_cancer", "diabetes"]
    text = (tmp_path / "out/sets.md").read_text()
    assert text.startswith("### Data sets\n\n| data | metric | rows | views | test part | default | `n=8` | linear |")
    assert main([*arguments, "--json"]) == 0
    again = capsys.readouterr()
    assert json.loads(again.out)["sets"] == found["sets"]
    assert again.err.splitlines() == ["16 of 16 trainings done"]


def test_without_a_name_the_table_has_all_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def plan_sets(directory: Path, *, data: list[str], **settings: Any) -> Any:
        seen.append(data)
        raise ConfigError("enough")

    monkeypatch.setattr("fusionkit.cli.study_sets.plan_sets", plan_sets)
    for arguments in ([], ["linnerud", "digits"]):
        assert main(["--sets", *arguments]) == 2
    assert {*seen[0]} >= {"mfeat", "digits", "breast_cancer", "diabetes", "linnerud"}
    assert seen[1] == ["linnerud", "digits"]


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "fusionkit study --quick" in out
    assert "--missing" in out
