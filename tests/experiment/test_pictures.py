"""The pictures of a run that are drawn later are those that it would have drawn itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionkit import cli
from fusionkit.experiment import results
from tests.run_records import run_job

Config = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    "changes",
    [
        {"train__epochs": 1},
        {"train__epochs": 2, "data__validation_size": 0.3, "train__refit": True, "metric": "log_loss"},
        {"train__epochs": 1, "data__test_size": 0, "data__validation_size": 0.3},
        {"train__epochs": 1, "task": "regression"},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_drawn_later(
    config: Config, tmp_path: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg, run_dir = config(**changes), tmp_path / "run"
    found = run_job(cfg, run_dir, quiet=True)
    pictures = {path.name: path.read_bytes() for path in run_dir.glob("*.png")}
    assert sorted(pictures) == sorted(results.pictures(found))
    assert cli.main(["show", str(run_dir)]) == 0
    assert run_job(cfg, run_dir, quiet=True, draw=False)["metrics"] == found["metrics"]
    assert not list(run_dir.glob("*.png"))
    assert cli.main(["show", str(run_dir)]) == 0
    assert {path.name: path.read_bytes() for path in run_dir.glob("*.png")} == pictures
    first, second = capsys.readouterr().out.split("run  ")[1:]
    assert "curve.png" in second
    assert [line for line in first.splitlines() if "seconds" not in line] == [
        line for line in second.splitlines() if "seconds" not in line
    ]


def test_other_data_are_refused(
    config: Config, npz: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_job(config(train__epochs=1), tmp_path / "run", quiet=True, draw=False)
    npz(a=np.ones((60, 4)))
    assert cli.main(["show", str(tmp_path / "run")]) == 1
    assert "The data should be those of" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.png"))


def test_a_run_without_what_can_be_drawn(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_job(config(train__epochs=1), tmp_path / "run", quiet=True, record_only=True)
    for argument in ("n=3", "--json"):
        status = cli.main(["show", str(tmp_path / "run"), argument])
        assert status == (0 if argument == "--json" else 2)
    shown = capsys.readouterr()
    assert '"status": "completed"' in shown.out
    assert "A run should be shown without options; found n=3." in shown.err
    assert cli.main(["show", str(tmp_path / "run")]) == 1
    assert "should contain model.safetensors" in capsys.readouterr().err
    results.write_failed(tmp_path / "run", config(), ValueError("It broke."))
    assert cli.main(["show", str(tmp_path / "run")]) == 1
    assert "found a failed one: It broke." in capsys.readouterr().err
