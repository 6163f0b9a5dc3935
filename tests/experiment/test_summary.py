"""What a run prints about its data and its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fusionkit.config import compose
from fusionkit.config.options import validate
from fusionkit.experiment.data import load_data
from fusionkit.experiment.run import run_job
from fusionkit.experiment.splits import split
from fusionkit.experiment.summary import _views, described_data, print_summary


def test_the_task_of_a_registered_data_set() -> None:
    config = validate(compose([]))
    data = load_data(config.tree["data"], task=config.task)
    lines = list(described_data(data, split(data, config.data, 0)))
    assert lines[1:] == ["task: classification, from 'label': as the data set says", "rows: 1600 training, 400 test"]


def test_what_is_absent_and_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"id": range(20), "label": ["a", "b"] * 10}).to_csv(tmp_path / "labels.csv", index=False)
    pd.DataFrame({"id": range(25), "x": range(25)}).to_csv(tmp_path / "first.csv", index=False)
    pd.DataFrame({"id": range(6, 26), "z": range(20)}).to_csv(tmp_path / "second.csv", index=False)
    files = ", ".join(f"{name}: {tmp_path / name}.csv" for name in ("labels", "first", "second"))
    overrides = ["data=table", f"data.path={{{files}}}", "data.label=label", "data.id=id", "train.epochs=1"]
    print_summary(run_job(validate(compose(overrides)), tmp_path / "run", quiet=True), tmp_path / "run")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "missing 6 of 40 views (second in 6 of 20 rows); 0 rows without any view" in lines
    assert "left out 6 ids without a label" in lines


def record(views: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """Return the record of a run with what the line about views needs."""
    known = {"metric": "accuracy", "metrics": {"accuracy": 0.9}, "targets": None, "views": views}
    return {**known, **changes}


def view(loss: float | None, width: float = 0.0) -> dict[str, float | None]:
    ends = {"low": None, "high": None} if loss is None else {"low": loss - width, "high": loss + width}
    return {"loss": loss, **ends, "without": None}


FALLS = "b matters most: accuracy falls by 0.2100 (0.2000 to 0.2200) when it is permuted"


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (record({"a": view(-0.00001), "b": view(0.21, 0.01)}), f"{FALLS}; least: a 0.0000"),
        (record({"a": view(-0.02), "b": view(0.21, 0.01), "c": view(0.1)}), f"{FALLS}; least: a -0.0200"),
        (record({"b": view(0.21, 0.01), "none": view(None)}), FALLS),
        (
            record({"a": view(0.0), "b": view(0.21, 0.01)}, metrics={}),
            f"{FALLS}; least: a 0.0000; on the validation part",
        ),
        (
            record({"a": view(123.4, 2), "b": view(0.5)}, metric="rmse", targets=["cost"]),
            "a matters most: rmse rises by 123.4 (121.4 to 125.4) when it is permuted; least: b 0.5",
        ),
        (
            record({"a": view(0.5)}, metric="mae", targets=["x", "y"]),
            "a matters most: mae rises by 0.5000 standard deviations (0.5000 to 0.5000) when it is permuted",
        ),
        (record({"a": view(-0.02, 0.03), "b": view(0.0)}), "none matters: accuracy does not fall when one is permuted"),
        (
            record({"a": view(-0.5)}, metric="rmse", metrics={}),
            "none matters: rmse does not rise when one is permuted; on the validation part",
        ),
    ],
    ids=["two", "negative", "one of them unknown", "validation", "rmse", "several targets", "none", "none of one"],
)
def test_the_line_about_views(result: dict[str, Any], line: str) -> None:
    assert list(_views(result)) == [("views", line)]


@pytest.mark.parametrize("views", [None, {"a": view(None)}])
def test_no_line_where_nothing_is_known(views: dict[str, Any] | None) -> None:
    assert list(_views(record(views))) == []
