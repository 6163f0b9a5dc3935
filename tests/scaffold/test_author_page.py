"""The life of a plugin author, command by command, with built wheels in fresh environments.

An environment has its own fusionkit, from a wheel, and its own plugin; what both depend on it shares with the
environment of the tests, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}


class Environment:
    """A virtual environment with fusionkit in it; ``work`` is the folder in which commands run."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.bin = folder / "env/bin"
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        venv.create(folder / "env", symlinks=True)
        self.site = next((folder / "env/lib").glob("python*/site-packages"))
        (self.site / "shared.pth").write_text("".join(f"{path}\n" for path in HERE))
        dropped = ("FUSIONKIT_", "PYTEST_", "PYTHON", "COV_")
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        self.environ |= {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "XDG_DATA_HOME": str(folder / "data"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "MPLBACKEND": "Agg",
            "COLUMNS": "120",
        }
        self.install(str(wheel))

    def run(self, *command: str, folder: str = ".") -> str:
        """Run a command of the environment and return what it prints; it should succeed."""
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.work / folder,
            env=self.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(self, *what: str, folder: str = ".") -> None:
        """``pip install`` without an index: every requirement should be there already."""
        offline = ["--quiet", "--no-index", "--no-build-isolation"]
        command = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", *offline, *what]
        done = subprocess.run(command, cwd=self.work / folder, env=self.environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return lambda name: Environment(tmp_path_factory.mktemp(name), next(dist.glob("*.whl")))


def the_page(env: Environment, kind: str, name: str, *overrides: str) -> None:
    """List, check and train the plugin."""
    where = env.run("python", "-c", "import fusionkit; print(fusionkit.__file__)").strip()
    assert Path(where).is_relative_to(env.site)
    records = {record["name"]: record for record in json.loads(env.run("fusionkit", "list", "--json"))}
    record = records[name]
    assert (record["kind"], record["distribution"], record["status"]) == (kind, f"fusionkit-{name}", "ok")
    assert f" {name} " in env.run("fusionkit", "list")

    env.run("fusionkit", "check", name, "--tier", "1", "--json", "report.json")
    report = json.loads((env.work / "report.json").read_text())
    assert {result["subject"] for result in report["results"]} == {f"fusionkit-{name}/{name}"}
    assert {result["status"] for result in report["results"]} == {"passed", "skipped"}
    skipped = {result["check"] for result in report["results"] if result["status"] == "skipped"}
    assert not skipped & {"entry_point_resolves", "config_composes", "config_safe", "config_round_trip"}

    env.run("fusionkit", "run", f"{kind}={name}", *overrides, "train.epochs=2", "hydra.run.dir=out")
    result = json.loads((env.work / "out/result.json").read_text())
    assert (result["status"], result[kind]) == ("completed", name)
    assert result["provenance"]["versions"][f"fusionkit-{name}"] == "0.1.0"


def test_a_fusion_installed_editable(environment: Callable[[str], Environment]) -> None:
    env = environment("gram")
    env.run("fusionkit", "new", "fusionkit-gram", "--fusion", "gram")
    env.install("-e", ".[test]", folder="fusionkit-gram")
    closing = env.run("python", "-m", "pytest", folder="fusionkit-gram").splitlines()[-1]
    assert " passed" in closing
    assert "failed" not in closing
    the_page(env, "fusion", "gram", "model.encoder=linear")


def test_a_fabrication_installed_from_its_wheel(environment: Callable[[str], Environment]) -> None:
    env = environment("band")
    env.run("fusionkit", "new", "fusionkit-band", "--fabrication", "band")
    env.run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", "../dist", folder="fusionkit-band")
    wheel = next((env.work / "dist").glob("*.whl"))
    env.install(f"{wheel}[test]")
    # Away from the sources, so that the wheel is what is tested.
    (env.work / "fusionkit-band/tests").rename(env.work / "tests")
    closing = env.run("python", "-m", "pytest", "tests").splitlines()[-1]
    assert " passed" in closing
    assert "failed" not in closing
    the_page(env, "fabrication", "band")
