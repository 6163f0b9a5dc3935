"""The command ``fusionkit export``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionkit import cli
from fusionkit.config import compose
from fusionkit.config.options import validate
from fusionkit.experiment.run import run_job


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a completed run, which the tests only read."""
    folder = tmp_path_factory.mktemp("finished")
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "a": generator.random((60, 4)),
        "b": generator.random((60, 3)),
        "label": np.arange(60) % 3,
    }
    np.savez(folder / "data.npz", **arrays)
    path = f"data.path={folder / 'data.npz'}"
    run_job(validate(compose(["data=npz", path, "train.epochs=1"])), folder / "run", quiet=True)
    return folder / "run"


def test_it_says_what_the_file_has(run_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.pt2"
    path.write_text("before")
    assert cli.main(["export", str(run_dir), str(path)]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    *lines, checked, exported = out.splitlines()
    assert [line.split(maxsplit=2) for line in lines[1:]] == [
        ["input", "a", "float32 (rows, 4)"],
        ["input", "b", "float32 (rows, 3)"],
        ["output", "probabilities", "float32 (rows, 3)  0, 1, 2"],
    ]
    found = re.fullmatch(r"checked in torch .*, on 3 and 17 rows: differs from the model by at most (.*)", checked)
    assert found is not None
    assert float(found[1]) < 1e-5
    assert exported == f"exported to {path}"
    assert path.read_bytes()[:6] != b"before"


@pytest.mark.parametrize("name", ["model.txt", "model", "model.onnx.gz", "nowhere/model.onnx", "."])
def test_files_that_it_does_not_write(
    name: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert cli.main(["export", str(run_dir), name]) == 2
    err = capsys.readouterr().err
    assert "Invalid value for" in err
    assert "'model" in err or name in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(tmp_path), str(tmp_path / "model.pt2")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} should be the directory of a completed run; found no")


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_without_the_extra(
    name: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["export", str(run_dir), str(tmp_path / "model.onnx")]) == 1
    should = f"{name!r} should be installed: pip install 'tensor-fusionkit[onnx]'"
    assert capsys.readouterr().err == f"error: {should}; found no such module\n"
    assert not (tmp_path / "model.onnx").exists()
