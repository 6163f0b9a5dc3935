"""The cache of the leaderboard: never another result than that of reading all records."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionkit.errors import FusionError
from fusionkit.experiment import records
from fusionkit.experiment.leaderboard import read_board
from fusionkit.experiment.records import CACHE, read_records
from fusionkit.experiment.results import RESULT, read_result
from tests.run_records import put

LONG_AGO = 1_700_000_000


def settle(folder: Path) -> None:
    """Date the records back: those of the last two seconds are not kept."""
    for file in folder.rglob(RESULT):
        os.utime(file, (LONG_AGO, LONG_AGO))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder of runs with everything that a record may have."""
    history = {"loss": [1.0, 0.5], "accuracy": [0.5, 0.9]}
    for seed in range(3):
        put(tmp_path, f"run{seed}", seed=seed, history=history, config={"seed": seed, "a": "ä\n\u202e"})
    put(tmp_path / "deep", "failed", status="failed", error="It \x9b broke.", traceback="a\nb")
    put(tmp_path, "odd", fusion="a\ud800\u202e", views={"a": {"loss": 0.1, "low": None}}, confusion=[[1]])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / RESULT).write_text('{"schema_version": 1')
    (tmp_path / "unfinished" / ".hydra").mkdir(parents=True)
    settle(tmp_path)
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that is filled with the names of the directories whose record is read."""
    names: list[str] = []

    def reading(path: Path) -> dict[str, Any]:
        names.append(path.parent.name)
        return read_result(path)

    monkeypatch.setattr(records, "read_result", reading)
    return names


def found(folder: Path) -> list[Any]:
    """Return what is found, in plain types."""
    pairs = read_records(folder)
    return [(str(one), str(record) if isinstance(record, FusionError) else record) for one, record in pairs]


def board(folder: Path) -> dict[str, Any]:
    return read_board(folder).to_dict()


def test_the_second_call_reads_only_what_is_new(runs: Path, read: list[str]) -> None:
    first, rows = found(runs), board(runs)
    assert sorted(set(read)) == ["bad", "failed", "odd", "run0", "run1", "run2"]
    read.clear()
    put(runs, "new", seed=7)
    again = found(runs)
    assert sorted(read) == ["bad", "new"]
    assert [one for one in again if not one[0].endswith("new")] == first
    shutil.rmtree(runs / "new")
    assert board(runs) == rows
    (runs / CACHE).unlink()
    assert (found(runs), board(runs)) == (first, rows)


def test_a_record_without_what_no_table_shows(runs: Path) -> None:
    text = {"config": {"a": "ä\n\u202e"}, "error": "It \\x9b broke.", "fusion": "a\\ud800\\u202e"}
    for _ in range(2):
        by_name = {folder.name: record for folder, record in read_records(runs) if isinstance(record, dict)}
        assert by_name["run0"]["config"]["a"] == text["config"]["a"]  # type: ignore[index]
        assert (by_name["failed"]["error"], by_name["odd"]["fusion"]) == (text["error"], text["fusion"])
        assert not {"confusion", "provenance", "traceback"} & (by_name["odd"].keys() | by_name["failed"].keys())


def in_place(runs: Path) -> None:
    file = runs / "run1" / RESULT
    file.write_text(file.read_text().replace("0.9}", "0.8}"))  # As long as before.
    os.utime(file, (LONG_AGO, LONG_AGO))


def replaced(runs: Path) -> None:
    text = (runs / "run1" / RESULT).read_text().replace("0.9}", "0.8}")
    (runs / "other").write_text(text)
    (runs / "other").replace(runs / "run1" / RESULT)
    os.utime(runs / "run1" / RESULT, (LONG_AGO, LONG_AGO))


def exchanged(runs: Path) -> None:
    for source, target in (("run1", "x"), ("run2", "run1"), ("x", "run2")):
        (runs / source).rename(runs / target)


def spoilt(runs: Path) -> None:
    (runs / "run1" / RESULT).write_text("[]")


def started_again(runs: Path) -> None:
    (runs / "run1" / ".hydra").mkdir()
    (runs / "run1" / RESULT).unlink()


def removed(runs: Path) -> None:
    shutil.rmtree(runs / "run1")


def linked(runs: Path) -> None:
    (runs / "run1" / RESULT).rename(runs / "elsewhere.json")
    (runs / "run1" / RESULT).symlink_to(runs / "elsewhere.json")


@pytest.mark.parametrize(
    "change",
    [in_place, replaced, exchanged, spoilt, started_again, removed, linked],
    ids=lambda change: change.__name__,
)
def test_a_change_is_seen(runs: Path, change: Callable[[Path], None]) -> None:
    before = found(runs)
    change(runs)
    after = found(runs)
    (runs / CACHE).unlink()
    assert after == found(runs)
    assert after != before or change is linked


def test_a_change_within_a_step_of_the_clock_is_seen(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: LONG_AGO * 10**9 + 1_000_000)
    found(runs)
    assert not (runs / CACHE).exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"schema_version": 0, "version": "0", "records": {}}',
        '{"schema_version": 1, "version": "another release", "records": {"run0": [[0, 0, 0, 0], {}]}}',
    ],
)
def test_a_cache_of_something_else_is_not_used(runs: Path, content: str) -> None:
    expected = found(runs)
    (runs / CACHE).write_text(content)
    assert found(runs) == expected


@pytest.mark.parametrize(
    "entry", [None, [], {"status": "completed"}, "text", {"schema_version": 1, "status": "completed", "l": -1}]
)
def test_what_is_in_a_cache_is_checked_like_a_record(runs: Path, entry: Any) -> None:
    expected = found(runs)
    content = json.loads((runs / CACHE).read_text())
    for name in ("run0", "run1"):
        content["records"][name][1] = entry
    content["records"]["run2"] = entry
    (runs / CACHE).write_text(json.dumps(content))
    assert found(runs) == expected
    assert found(runs) == expected


def test_texts_of_a_cache_are_printed_harmless(runs: Path) -> None:
    found(runs)
    content = json.loads((runs / CACHE).read_text())
    content["records"]["run0"][1]["fusion"] = "\x9b31m"
    (runs / CACHE).write_text(json.dumps(content))
    assert dict(found(runs))[str(runs / "run0")]["fusion"] == "\\x9b31m"


def test_a_folder_that_cannot_be_written_to(runs: Path) -> None:
    (runs / CACHE).mkdir()  # No file can be put there, as in a read-only folder.
    (runs / CACHE / "full").touch()
    assert found(runs) == found(runs)
    assert [path.name for path in runs.glob(".*")] == [CACHE]


def test_nothing_is_written_where_nothing_is_new(runs: Path) -> None:
    found(runs)
    before = (runs / CACHE).stat()
    found(runs)
    assert (runs / CACHE).stat() == before


def test_a_cache_of_two_leaderboards_at_once(runs: Path) -> None:
    expected = found(runs)
    (runs / CACHE).unlink()
    one, two = read_records(runs), read_records(runs)
    next(one), next(two)
    put(runs, "zzz")
    removed(runs)
    for iterator in (two, one):
        list(iterator)
    assert found(runs) != expected
    after = found(runs)
    (runs / CACHE).unlink()
    assert after == found(runs)
