"""What a run prints about its data and its results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fusionkit.config import compose
from fusionkit.config.options import validate
from fusionkit.experiment.data import load_data
from fusionkit.experiment.run import run_job
from fusionkit.experiment.splits import split
from fusionkit.experiment.summary import described_data, print_summary


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
