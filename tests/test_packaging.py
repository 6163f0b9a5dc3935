"""The built distributions: what they contain, and that the wheel works in another directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_wheel_contents(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        metadata = next(wheel.read(name).decode() for name in names if name.endswith("dist-info/METADATA"))
        entry_points = next(wheel.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    for name in ("py.typed", "conf/config.yaml", "conf/fusion/summation.yaml", "data/mfeat.npz", "data/README.md"):
        assert f"fusionkit/{name}" in names
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert "\nName: tensor-fusionkit\n" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "fusionkit = fusionkit.cli:main" in entry_points
    assert "builtin = fusionkit.builtin" in entry_points
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fusionkit", "tensor_fusionkit"}


def test_sdist_contents(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"conf/config.yaml", "README.md", "LICENSE", "NOTICE", "tests/test_packaging.py"} <= names
    assert not [name for name in names if name.startswith("plugins/")]


@pytest.mark.exhaustive
def test_wheel_works_in_another_directory(dist: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    work = tmp_path / "work"
    work.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "120"}

    def fusionkit(*arguments: str) -> str:
        command = [sys.executable, "-m", "fusionkit", *arguments]
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = "import fusionkit, fusionkit.config as c; print(fusionkit.__file__); print(c.conf_dir())"
    done = subprocess.run([sys.executable, "-c", where], cwd=work, env=env, check=True, capture_output=True, text=True)
    assert [Path(line).is_relative_to(site) for line in done.stdout.split()] == [True, True]
    names = {record["name"] for record in json.loads(fusionkit("list", "--json"))}
    assert {"summation", "parameterized_concatenation", "dense", "lowrank"} <= names
    fusionkit("run", "train.epochs=1", "hydra.run.dir=out")
    assert json.loads((work / "out/result.json").read_text())["status"] == "completed"
    assert (work / "out/curve.png").stat().st_size > 0
