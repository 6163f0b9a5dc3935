from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionkit import cli
from fusionkit.experiment.leaderboard import read_board
from fusionkit.experiment.statistics import summarize
from tests.run_records import put

Config = Callable[..., dict[str, Any]]


def main(argv: list[str]) -> int:
    return cli.main(["leaderboard", *argv])


def test_means_over_seeds(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.9, 0.92, 0.97)):
        put(tmp_path / "deep" / "er", f"dense{seed}", seed=seed, metrics={"accuracy": accuracy})
    put(tmp_path, "lowrank", fabrication="lowrank", l=7, metrics={"accuracy": 0.95})
    board = read_board(tmp_path)
    first, second = (group.to_dict() for group in board.groups)
    assert (first["fabrication"], first["accuracy"], first["std"], first["runs"]) == ("lowrank", 0.95, None, 1)
    assert second["accuracy"] == pytest.approx(0.93)
    assert second["std"] == pytest.approx(0.036055512754)
    assert (second["runs"], second["seeds"]) == (3, [0, 1, 2])


@pytest.mark.parametrize(
    "differing",
    [
        {"n": 6},
        {"l": 36},
        {"dims": [5, 5]},
        {"fabrication": "lowrank"},
        {"fusion": "gram"},
        {"encoder": "linear"},
        {"parameters": 54},
        {"config": {"train": {"lr": 0.1}}},
    ],
)
def test_only_seeds_are_averaged(tmp_path: Path, differing: dict[str, Any]) -> None:
    put(tmp_path, "a")
    put(tmp_path, "b", seed=1, **differing)
    assert len(read_board(tmp_path).groups) == 2


def test_device_and_place_of_the_data_do_not_separate(tmp_path: Path) -> None:
    for seed, device in enumerate(("cpu", "cuda")):
        config = {"seed": seed, "device": device, "fusion": {"device": device}, "data": {"path": f"/{device}/x.npz"}}
        put(tmp_path, device, seed=seed, config=config)
    assert [len(group.runs) for group in read_board(tmp_path).groups] == [2]


def test_folds_and_draws_by_seeds_are_never_averaged(tmp_path: Path) -> None:
    for seed in (0, 1):
        put(tmp_path, f"drawn{seed}", seed=seed, config={"seed": seed, "data": {"fold": None}})
        put(tmp_path, f"fold{seed}", config={"seed": 0, "data": {"fold": seed}})
    groups = read_board(tmp_path).groups
    assert sorted((group.options, len(group.runs)) for group in groups) == [
        ("data.fold=each", 2),
        ("data.fold=null", 2),
    ]


def test_options_are_told_where_l_differs_too(tmp_path: Path) -> None:
    put(tmp_path, "all", config={"data": {"drop": None}})
    put(tmp_path, "fewer", l=12, config={"data": {"drop": ["age"]}})
    assert {group.options for group in read_board(tmp_path).groups} == {"data.drop=null", "data.drop=[age]"}


@pytest.mark.parametrize(
    "other",
    [{"data_dims": [9, 9]}, {"data": {"name": "mfeat"}}, {"data": {"name": "npz", "label": "x.npz", "digest": "22"}}],
)
def test_different_data_are_never_averaged(tmp_path: Path, other: dict[str, Any]) -> None:
    put(tmp_path, "a", data={"name": "npz", "label": "x.npz", "digest": "11"})
    put(tmp_path, "b", seed=1)
    put(tmp_path, "c", seed=2, **other)
    board = read_board(tmp_path)
    assert [len(group.runs) for group in board.groups] == [1, 1, 1]
    assert len({group.data for group in board.groups}) == 3


def test_a_repeated_run_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(put(tmp_path, "a"), tmp_path / "copy")
    put(tmp_path, "b", seed=1)
    board = read_board(tmp_path)
    assert [len(group.runs) for group in board.groups] == [2]
    assert board.repeated == 1
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().err == "left out: 1 repeated run, of the same config and seed as another.\n"


def test_options_tell_alike_groups_apart(tmp_path: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        put(tmp_path, name, config={"train": {"lr": lr, "epochs": 3}}, metrics={"accuracy": 1 - lr})
    put(tmp_path, "c", n=6, config={"train": {"lr": 0.3, "epochs": 3}}, metrics={"accuracy": 0.1})
    assert [group.options for group in read_board(tmp_path).groups] == ["train.lr=0.1", "train.lr=0.2", ""]


def test_options_are_shown_as_overrides(tmp_path: Path) -> None:
    for i, weight in enumerate(["balanced", {"yes": 5, "no": 0.5}, None]):
        put(tmp_path, str(i), config={"train": {"class_weight": weight}}, metrics={"accuracy": 0.9 - i / 10})
    shown = ["balanced", "{yes:5,no:0.5}", "null"]
    assert [group.options for group in read_board(tmp_path).groups] == [f"train.class_weight={one}" for one in shown]


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabrication = {"name": "lowrank", "r": 2}
    config = {"fusion": {"parameter_fabrication": fabrication}}
    put(tmp_path, "a", metrics={"accuracy": 0.9})
    put(tmp_path, "b", metrics={"accuracy": 0.92}, seed=1)
    put(tmp_path, "c", fabrication="lowrank", config=config, l=14, metrics={"accuracy": 0.95})
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr()
    heading, header, first, second, last = shown.out.splitlines()
    assert heading == "unknown data: classification, ranked by test accuracy (no run has a validation part)"
    split = re.compile(r"\s{2,}").split
    assert split(header) == [
        "data",
        "fusion",
        "fabrication",
        "n",
        "l",
        "parameters",
        "runs",
        "accuracy",
        "seconds",
        "directory",
    ]
    assert split(first)[2:] == ["lowrank (r=2)", "5", "14", "53", "1", "0.9500", "2.0", "c"]
    assert split(second)[2:] == ["dense", "5", "35", "53", "2", "0.9100 ± 0.0141", "2.0", "a (+1)"]
    assert last == f"accuracy against l: {tmp_path / 'leaderboard.png'}"
    assert shown.err == ""
    assert (tmp_path / "leaderboard.png").read_bytes().startswith(b"\x89PNG")


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a")
    put(tmp_path, "b", status="failed", error="It broke.", metrics={})
    assert main([str(tmp_path), "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [row["accuracy"] for row in found["rows"]] == [0.9]
    assert found["failed"] == [{"path": str(tmp_path / "b"), "error": "It broke."}]
    assert shown.err.splitlines()[0] == f"failed: {tmp_path / 'b'}: It broke."


def test_csv_has_the_rows_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a", metrics={"accuracy": 0.9})
    put(tmp_path, "b", seed=1, metrics={"accuracy": 0.92})
    put(tmp_path, "c", fusion='a, "b"', l=7)
    assert main([str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert main([str(tmp_path), "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(lines) == len(rows) == 2
    for line, row in zip(lines, rows, strict=True):
        assert set(line) == set(row)
        assert (line["fusion"], float(line["accuracy"]), int(line["l"])) == (row["fusion"], row["accuracy"], row["l"])
        assert line["paths"].split(";") == row["paths"]
        assert line["std"] == ("" if row["std"] is None else repr(row["std"]))


def test_folds_are_averaged_and_the_interval_is_corrected(tmp_path: Path) -> None:
    values = (0.9, 0.92, 0.97)
    for fold, accuracy in enumerate(values):
        data = {"name": "digits", "digest": "11", "test_rows": 360, "training_rows": 1437}
        put(tmp_path, f"{fold}", config={"data": {"fold": fold}}, data=data, metrics={"accuracy": accuracy})
    (group,) = read_board(tmp_path).groups
    expected = summarize(values, 360 / 1797)
    assert (group.to_dict()["low"], group.to_dict()["high"]) == (expected.low, expected.high)


def test_front(tmp_path: Path) -> None:
    put(tmp_path, "best", l=100, metrics={"accuracy": 0.9})
    put(tmp_path, "small", l=10, metrics={"accuracy": 0.8})
    put(tmp_path, "beaten", l=50, metrics={"accuracy": 0.7})
    put(tmp_path, "encoded", l=0, encoder="linear", metrics={"accuracy": 0.99})
    put(tmp_path, "elsewhere", l=500, data={"name": "digits", "digest": "1"}, metrics={"accuracy": 0.1})
    found = {group.runs[0].path.parent.name: group.on_front for group in read_board(tmp_path).groups}
    assert found == {"best": True, "small": True, "beaten": False, "encoded": False, "elsewhere": True}


def test_real_runs_can_be_read(tmp_path: Path, run_dir: Path) -> None:
    (group,) = read_board(run_dir.parent).groups
    assert group.to_dict()["l"] == 35
    assert group.data == "views.npz"


# -- tables ------------------------------------------------------------------------------------------------------------


def regression(test: float | None, validation: float | None = None, **changes: Any) -> dict[str, Any]:
    parts = {"metrics": {"rmse": test}, "validation": None if validation is None else {"rmse": validation}}
    return {"task": "regression", "metric": "rmse", **parts, **changes}


def named(folder: Path) -> dict[str, list[str]]:
    """Return the directories of the runs of each group, best first, by the heading of their table."""
    return {
        table.heading: [" ".join(run.path.parent.name for run in group.runs) for group in table.groups]
        for table in read_board(folder).tables
    }


def test_a_table_per_data_set_task_and_metric(tmp_path: Path) -> None:
    put(tmp_path, "before")
    put(tmp_path, "now", seed=1, task="classification", metric="accuracy")
    put(tmp_path, "f1", metric="f1_macro", metrics={"accuracy": 0.9, "f1_macro": 0.7})
    put(tmp_path, "rmse", **regression(1.5))
    put(tmp_path, "elsewhere", data={"name": "digits", "digest": "1"})
    by = "(no run has a validation part)"
    assert named(tmp_path) == {
        f"digits: classification, ranked by test accuracy {by}": ["elsewhere"],
        f"unknown data: classification, ranked by test accuracy {by}": ["before now"],
        f"unknown data: classification, ranked by test f1_macro {by}": ["f1"],
        f"unknown data: regression, ranked by test rmse, less is better {by}": ["rmse"],
    }
    assert [table.name for table in read_board(tmp_path).tables] == [
        "digits",
        "unknown data: classification by accuracy",
        "unknown data: classification by f1_macro",
        "unknown data: regression by rmse",
    ]


def test_another_label_is_another_data_set(tmp_path: Path) -> None:
    data = {"name": "table", "label": "t.csv", "digest": "12345678ab"}
    for name, label in (("a", "dose"), ("b", ["dose", "age"]), ("c", "dose")):
        put(tmp_path, name, data=data, seed=ord(name), config={"data": {"label": label}}, **regression(1.0))
    tables = read_board(tmp_path).tables
    assert [table.name for table in tables] == ["t.csv (dose)", "t.csv (dose, age)"]
    assert [[len(group.runs) for group in table.groups] for table in tables] == [[2], [1]]


def test_new_keys_at_their_defaults_do_not_tell_runs_of_before_apart(tmp_path: Path) -> None:
    train = {"epochs": 3, "lr": 0.1}
    put(tmp_path, "before", config={"train": train})
    put(tmp_path, "now", seed=1, config={"train": {**train, "patience": None, "refit": False}, "task": "auto"})
    (table,) = read_board(tmp_path).tables
    assert sorted(group.options for group in table.groups) == ["task=auto", "task=classification"]


def test_every_place_of_the_data_is_left_out_of_the_group(tmp_path: Path) -> None:
    for seed, folder in enumerate(("/a", "/b")):
        paths = {"path": {"rna": f"{folder}/rna.csv"}, "test_path": f"{folder}/test.csv"}
        put(tmp_path, str(seed), seed=seed, config={"data": paths})
    put(tmp_path, "other", seed=2, config={"data": {"paths": 1}})
    assert sorted(len(group.runs) for group in read_board(tmp_path).groups) == [1, 2]


def test_less_rmse_is_better(tmp_path: Path) -> None:
    for name, value, size in (("far", 9.0, 10), ("near", 1.0, 100), ("beaten", 9.5, 20)):
        put(tmp_path, name, **regression(value, l=size))
    assert list(named(tmp_path).values()) == [["near", "far", "beaten"]]
    assert [group.on_front for group in read_board(tmp_path).groups] == [True, True, False]


def test_the_validation_part_ranks_where_every_run_has_one(tmp_path: Path) -> None:
    put(tmp_path, "a", **regression(1.0, 4.0, l=1))
    put(tmp_path, "b", **regression(2.0, 3.0, l=2))
    ((heading, order),) = named(tmp_path).items()
    assert (heading, order) == ("unknown data: regression, ranked by validation rmse, less is better", ["b", "a"])
    assert [group.on_front for group in read_board(tmp_path).groups] == [True, True]
    put(tmp_path, "final", **regression(None, l=3, metrics={}))  # Trained on all rows: it is compared with nothing.
    assert list(named(tmp_path).values()) == [["b", "a", "final"]]
    put(tmp_path, "c", **regression(1.5, l=3))
    ((heading, order),) = named(tmp_path).items()
    assert heading == (
        "unknown data: regression, ranked by test rmse, less is better (not every run has a validation part)"
    )
    assert order == ["a", "c", "b", "final"]


def test_what_is_undefined_is_shown_and_not_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    auc = {"task": "classification", "metric": "roc_auc"}
    for seed, value in enumerate((0.8, None, 0.9)):
        put(tmp_path, f"{seed}", seed=seed, **auc, metrics={"roc_auc": value, "accuracy": 0.5})
    put(tmp_path, "whole", l=1, **auc, metrics={})
    assert main([str(tmp_path)]) == 0
    _, header, *lines, _ = capsys.readouterr().out.splitlines()
    split = re.compile(r"\s{2,}").split
    assert split(header)[6:] == ["runs", "roc_auc", "accuracy", "seconds", "directory"]
    assert [split(line)[6:8] for line in lines] == [["2", "0.8500 ± 0.0707"], ["1", "no test part"], ["1", "undefined"]]
    assert main([str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["value"], row["accuracy"]) for row in rows] == [(pytest.approx(0.85), 0.5), (None, None), (None, 0.5)]
    assert [row["on_front"] for row in rows] == [True, False, False]


def test_no_picture_without_any_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "whole", metrics={})
    assert main([str(tmp_path)]) == 0
    assert "leaderboard.png" not in capsys.readouterr().out
    assert not (tmp_path / "leaderboard.png").exists()


def test_rows_have_both_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"name": "table", "digest": "1", "training_rows": 60, "validation_rows": 20, "test_rows": 40}
    values = [(12.0, 30.0), (14.0, 33.0), (17.0, 31.0)]
    for seed, pair in enumerate(values):
        put(tmp_path, f"{seed}", seed=seed, data=data, **regression(*pair))
    assert main([str(tmp_path), "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].startswith("rmse against l: ")
    (row,) = json.loads(shown.out)["rows"]
    test = summarize([value for value, _ in values], 40 / 100, (0.0, 1e100))
    validation = summarize([value for _, value in values], 20 / 80, (0.0, 1e100))
    assert (row["task"], row["metric"], row["ranked_by"]) == ("regression", "rmse", "validation")
    assert [row[key] for key in ("value", "std", "low", "high")] == [test.mean, test.std, test.low, test.high]
    keys = ("validation", "validation_std", "validation_low", "validation_high")
    assert [row[key] for key in keys] == [validation.mean, validation.std, validation.low, validation.high]
    assert row["accuracy"] is None
    assert main([str(tmp_path)]) == 0
    line = capsys.readouterr().out.splitlines()[2]
    assert "  31.33 ± 1.53  14.33 ± 2.52  " in line
    assert main([str(tmp_path), "--csv"]) == 0
    (cells,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {key: float(cells[key]) for key in ("value", "validation", "validation_std")} == {
        key: row[key] for key in ("value", "validation", "validation_std")
    }
    assert (cells["task"], cells["metric"], cells["accuracy"]) == ("regression", "rmse", "")


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "fusionkit leaderboard multirun" in capsys.readouterr().out


def test_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = f"The directory of runs should exist; found no directory {tmp_path / 'none'}."
    assert cli.main(["leaderboard", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_no_folder_for_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "none"
    assert cli.main(["leaderboard", str(tmp_path), "--html", str(folder / "r.html")]) == 2
    sentence = f"{folder / 'r.html'} should be a file in a folder that exists; found no {folder}."
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()[-1]) == ("", f"Error: Invalid value for '--html': {sentence}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: list[str]) -> None:
    assert main([str(tmp_path), *form]) == 1
    shown = capsys.readouterr()
    assert shown.err == f"error: {tmp_path} should contain a completed run; found none.\n"
    assert list(tmp_path.iterdir()) == []
    assert ("rows" in shown.out, len(shown.out.splitlines())) == (
        form == ["--json"],
        {"--json": 9, "--csv": 1}.get("".join(form), 0),
    )


def test_only_failed_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a", status="failed", error="It broke.")
    (tmp_path / "b" / ".hydra").mkdir(parents=True)
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"failed: {tmp_path / 'a'}: It broke.",
        f"unfinished: {tmp_path / 'b'}: it has no result.json; the run was stopped or is still running",
        f"error: {tmp_path} should contain a completed run; found 1 failed, 1 unfinished.",
    ]


def test_a_run_without_a_record_is_named_and_no_reason_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (put(tmp_path, "a") / ".hydra").mkdir()
    (tmp_path / "deep" / "killed" / ".hydra" / ".hydra").mkdir(parents=True)
    assert main([str(tmp_path), "--json"]) == 0
    shown = capsys.readouterr()
    killed = str(tmp_path / "deep" / "killed")
    found = json.loads(shown.out)
    assert ([len(row["paths"]) for row in found["rows"]], found["unfinished"]) == ([1], [killed])
    assert shown.err.startswith(
        f"unfinished: {killed}: it has no result.json; the run was stopped or is still running\n"
    )


def test_runs_that_can_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "done")
    put(tmp_path, "failed", status="failed", error="It broke.")
    (tmp_path / "killed of one").mkdir()  # Without Hydra's folder, as hydra.output_subdir=null leaves it.
    for name, files in (
        ("failed", ["000002", "000010"]),
        ("killed of one", ["000999", "refit-000004"]),
        ("done", ["1"]),
    ):
        for file in files:
            (tmp_path / name / f"checkpoint-{file}.safetensors").touch()
    assert main([str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    killed = str(tmp_path / "killed of one")
    assert found["unfinished"] == [killed]
    assert found["resumable"] == [
        {"path": str(tmp_path / "failed"), "after": "epoch 10"},
        {"path": killed, "after": "epoch 4 of the refit"},
    ]
    assert main([str(tmp_path), "--csv"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[2] == f"resumable: {tmp_path}/failed: fusionkit run --resume {tmp_path}/failed goes on after epoch 10"
    assert lines[3] == f"resumable: {killed}: fusionkit run --resume '{killed}' goes on after epoch 4 of the refit"


def test_links_are_followed_once(tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere", "a")
    put(tmp_path / "runs", "b", seed=1)
    (tmp_path / "runs" / "link").symlink_to(elsewhere)
    (tmp_path / "runs" / "same").symlink_to(elsewhere)
    (tmp_path / "runs" / "round").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "result.json").symlink_to(tmp_path / "gone.json")
    board = read_board(tmp_path / "runs")
    assert [run.path.parent.name for group in board.groups for run in group.runs] == ["b", "link"]
    assert board.problems == [f"{tmp_path / 'runs' / 'c' / 'result.json'} should exist; found no such file."]
    assert (board.repeated, board.unfinished) == (0, [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"schema_version": 1, "status"', "should be complete JSON; found "),
        (
            '{"schema_version": 7}',
            "should have the schema version 1; found 7, written by another release of fusionkit.",
        ),
        ("[]", "should be the record of a run, with a schema_version; found none."),
        (
            '{"schema_version": 1, "status": "completed", "metrics": {"f1_macro": 0.5}, "l": 1}',
            "should have a number or null as metrics.accuracy; found none.",
        ),
        (
            '{"schema_version": 1, "status": "completed", "metric": "rmse", "metrics": {"rmse": -1}, "l": 1}',
            "should have a number from 0 to 1e+100 as metrics.rmse; found -1.",
        ),
        (
            '{"schema_version": 1, "status": "completed", "validation": {"accuracy": 2}, "l": 1}',
            "should have a number from 0 to 1 as validation.accuracy; found 2.",
        ),
        (
            '{"schema_version": 1, "status": "completed", "metrics": {"accuracy": NaN}, "l": 1}',
            "should be complete JSON; found the number NaN, which is not finite.",
        ),
        (
            '{"schema_version": 1, "status": "completed", "metrics": {"accuracy": 1}, "l": null}',
            "should have a non-negative integer as l; found None.",
        ),
    ],
)
def test_bad_records_are_reported_and_not_fatal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, problem: str
) -> None:
    put(tmp_path, "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text(content)
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith(f"left out: {tmp_path / 'bad' / 'result.json'} {problem}")
    assert shown.err.count("\n") == 1
    assert "0.9000" in shown.out


@pytest.mark.parametrize(
    "odd",
    [
        {"data": {}, "config": {}, "encoder": "7", "seconds": None},
        {"fusion": None, "fabrication": None, "n": None, "dims": None, "data_dims": None, "seed": None},
        {"config_hash": None, "data": {"name": "$x_1$"}},
    ],
)
def test_odd_records_are_no_reason_to_stop(tmp_path: Path, odd: dict[str, Any]) -> None:
    put(tmp_path, "a", **odd)
    put(tmp_path, "b", **odd)
    assert main([str(tmp_path)]) == 0
    assert sum(len(group.runs) for group in read_board(tmp_path).groups) == 2


@pytest.mark.parametrize("wrong", [{"data": 3}, {"config": []}, {"encoder": 7}, {"seconds": "long"}, {"seed": "x"}])
def test_records_of_wrong_types_are_left_out(tmp_path: Path, wrong: dict[str, Any]) -> None:
    put(tmp_path, "good")
    put(tmp_path, "bad", **wrong)
    (problem,) = read_board(tmp_path).problems
    assert f"should be the record of a run: {next(iter(wrong))} should be " in problem
    assert main([str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            '"l": 9223372036854775808',
            "l should be an integer from 0 to 9007199254740992 or null; found 9223372036854775808",
        ),
        ('"metrics": {"accuracy": 1e400}', "should be complete JSON; found the number 1e400, which is not finite."),
        ('"metrics": {"accuracy": 1e300}', "should have a number from 0 to 1 as metrics.accuracy; found 1e+300."),
        ('"n": NaN', "should be complete JSON; found the number NaN, which is not finite."),
        ('"config": {"x": -Infinity}', "should be complete JSON; found the number -Infinity, which is not finite."),
        (f'"fusion": "{"x" * 200_000}"', "fusion should be a text of at most 255 characters or null; found 'xxx"),
        (f'"data": {{"label": "{"x" * 256}"}}', "data.label should be a text of at most 255 characters or null; found"),
        (
            '"data": {"test_rows": "3"}',
            "data.test_rows should be an integer from 0 to 9007199254740992 or null; found '3'.",
        ),
        ('"seconds": 1e308', "seconds should be a number from 0 to 10000000000.0 or null; found 1e+308."),
        (f'"config": {"[" * 500}{"]" * 500}', "should be nested at most 64 levels deep; found more."),
    ],
)
def test_one_wrong_record_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, problem: str
) -> None:
    put(tmp_path, "good")
    text = (put(tmp_path, "bad") / "result.json").read_text()
    (tmp_path / "bad" / "result.json").write_text(f"{text.rstrip()[:-1]}, {content}}}")
    assert main([str(tmp_path), "--json", "--html", str(tmp_path / "page.html")]) == 0
    shown = capsys.readouterr()
    assert problem in shown.err
    assert len(shown.err) < 2000
    assert [row["runs"] for row in json.loads(shown.out)["rows"]] == [1]


def test_a_pipe_or_a_huge_file_is_no_record(tmp_path: Path) -> None:
    for name in ("good", "pipe", "huge"):
        put(tmp_path, name)
    (tmp_path / "pipe" / "result.json").unlink()
    os.mkfifo(tmp_path / "pipe" / "result.json")
    with (tmp_path / "huge" / "result.json").open("r+b") as file:
        file.truncate(40 * 2**30)
    board = read_board(tmp_path)
    assert len(board.groups) == 1
    assert all("should be a file of at most 64000000 bytes; found another." in problem for problem in board.problems)
    assert len(board.problems) == 2


def test_texts_of_a_record_are_printed_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "a\ud800\x9b31m\u202e"
    put(tmp_path, "a", fusion=odd, data={"name": odd, "digest": odd}, config={"fusion": {"x": odd}})
    put(tmp_path, "b", fusion=odd, data={"name": odd, "digest": odd}, config={"fusion": {"x": odd * 1000}})
    put(tmp_path, "c", status="failed", error=odd)
    put(tmp_path, "\x9b31m\u202e", fusion="average")
    for form in ([], ["--json"], ["--csv"]):
        assert main([str(tmp_path), *form, "--html", str(tmp_path / "page.html")]) == 0
        shown = capsys.readouterr()
        text = shown.out + shown.err + (tmp_path / "page.html").read_text()
        assert "a\\ud800\\x9b31m\\u202e" in text.replace("\\\\", "\\")
        assert "\x9b" not in text
        assert "\u202e" not in text
