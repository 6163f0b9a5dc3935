from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fusionkit import cli
from fusionkit.bench import cli as bench


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", ["dense", "lowrank", "concatenation", "parameterized_concatenation"])
def test_measure(name: str, backward: bool) -> None:
    row = bench.measure(name, 5, [3, 4], 2, backward=backward, seconds=0.0)
    assert row is not None
    assert (row.name, row.m, row.dims, row.n) == (name, 5, [3, 4], 2)
    assert min(row.milliseconds, row.limit, row.cat_linear) > 0


def test_operators_that_cannot_have_the_dims_are_left_out() -> None:
    assert bench.measure("summation", 5, [3, 4], 2, backward=False, seconds=0.0) is None


def test_table_and_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "GRID", [(3, [2, 2], 2)])
    threads = torch.get_num_threads()
    assert cli.main(["bench", "dense", "--seconds", "0", "--threads", "1", "--json", str(tmp_path / "b.json")]) == 0
    assert torch.get_num_threads() == threads
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["schema_version"] == 1
    assert content["machine"]["threads"] == 1
    assert [(row["name"], row["mode"]) for row in content["rows"]] == [
        ("dense", "forward"),
        ("dense", "forward and backward"),
    ]
    assert "to cat + linear" in capsys.readouterr().out


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "denze"]) == 2
    assert "Did you mean 'dense'?" in capsys.readouterr().err
