"""The life of a plugin author, with built wheels in fresh environments: the commands of docs/plugins.md as they stand.

An environment holds fusionkit from its wheel, and of what is installed here exactly what fusionkit, the package and a
build require: a missing requirement is found, and nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8").partition("## Ten minutes")[2]
# What a new package needs besides tensor-fusionkit[run,new]; the build's own requirements, since nothing is downloaded.
TOOLS = ("pip", "hatchling", "editables", "pytest>=8.3", "hypothesis>=6.112")

# Not find_spec: setuptools answers it by switching off what torch's compiler needs.
PIP = next(iter(distributions(name="pip")), None)
pytestmark = [pytest.mark.exhaustive, pytest.mark.skipif(PIP is None, reason="pip is not installed")]


def required(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Return the distributions installed here that meet the requirements, and theirs; those of fusionkit excepted."""
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            distribution = Distribution.from_name(requirement.name)
        except PackageNotFoundError:  # pip will say so.
            continue
        if requirement.name != "tensor-fusionkit":
            found[requirement.name] = distribution
        for wanted in {"", *requirement.extras}:
            if (requirement.name, wanted) not in asked:
                asked.add((requirement.name, wanted))
                waiting += [(Requirement(text), wanted) for text in distribution.requires or ()]
    return found


def share(distributions: Iterable[Distribution], folder: Path) -> None:
    """Link the files of the distributions into a folder."""
    folder.mkdir()
    for distribution in distributions:
        names = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for name in names:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(Path(str(distribution.locate_file(name))).resolve())


class Environment:
    """A virtual environment; ``work`` is the empty folder in which commands run."""

    def __init__(self, folder: Path, dist: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        venv.create(folder / "env", symlinks=True)
        self.site = next((folder / "env/lib").glob("python*/site-packages"))
        share(required(["tensor-fusionkit[run,new]", *TOOLS]).values(), folder / "shared")
        (self.site / "shared.pth").write_text(f"{folder / 'shared'}\n")
        programs = folder / "env/bin"
        python = programs / "python"
        offline = f"--quiet --no-index --no-build-isolation --find-links '{dist}'"
        for name, command in {"pip": f'-m pip "$1" {offline} "${{@:2}}"', "pytest": '-m pytest "$@"'}.items():
            (programs / name).write_text(f"#!/usr/bin/env bash\nexec '{python}' {command}\n")
            (programs / name).chmod(0o755)
        dropped = ("FUSIONKIT_", "PYTEST_", "PYTHON", "COV_", "PIP_")
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(dropped)},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "XDG_DATA_HOME": str(folder / "data"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "MPLBACKEND": "Agg",
            "COLUMNS": "120",
        }

    def run(self, script: str) -> str:
        """Run lines of a shell and return what they print; each should succeed."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.work,
            env=self.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def where(self, module: str) -> Path:
        """Return the file from which a module is imported, seen from the folder ``work``."""
        return Path(self.run(f"python -c 'import {module}; print({module}.__file__)'").strip())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return lambda name: Environment(tmp_path_factory.mktemp(name), dist)


def listed(env: Environment) -> dict[str, dict[str, str]]:
    """Return the records of the distributions that are not fusionkit, by name."""
    records = json.loads(env.run("fusionkit list --json"))
    return {record["name"]: record for record in records if record["distribution"] != "tensor-fusionkit"}


def test_the_page_as_it_stands(environment: Callable[[str], Environment]) -> None:
    env = environment("gram")
    commands = re.search(r"```\n(.*?)```", PAGE, re.DOTALL)
    assert commands is not None
    # The page says how fusionkit comes there first; here it does from its wheel.
    output = env.run(f"pip install 'tensor-fusionkit[run,new]'\n{commands[1]}")

    assert env.where("fusionkit").is_relative_to(env.site)
    assert re.search(r"^=+ \d+ passed(, \d+ skipped)? in .* =+$", output, re.MULTILINE)
    assert re.search(r"^fusion +gram +fusionkit-gram 0\.1\.0 +ok +\S.*$", output, re.MULTILINE)
    assert re.search(r"^fusionkit-gram/gram +fusion +\d+ +0 +0 +\d+ +\S+ +ok$", output, re.MULTILINE)
    (result,) = (json.loads(path.read_text()) for path in env.work.glob("fusionkit-gram/outputs/*/*/result.json"))
    assert (result["status"], result["fusion"]) == ("completed", "gram")
    assert result["metrics"]["accuracy"] > 0.8
    assert result["provenance"]["versions"]["fusionkit-gram"] == "0.1.0"

    env.run("cd fusionkit-gram && fusionkit plugins --strict && fusionkit conf check")  # As its CI does.


def test_a_fabrication_from_its_wheel(environment: Callable[[str], Environment]) -> None:
    env = environment("band")
    env.run("pip install 'tensor-fusionkit[run,new]'; fusionkit new fusionkit-band --fabrication band")
    env.run("cd fusionkit-band; python -m hatchling build -t wheel -d ../dist; pip install ../dist/*.whl")
    (env.work / "fusionkit-band/tests").rename(env.work / "tests")  # Away from the sources: the wheel is tested.
    assert env.where("fusionkit_band").is_relative_to(env.site)
    env.run("pytest tests")
    assert listed(env)["band"]["distribution"] == "fusionkit-band"
    env.run("fusionkit check band --tier 1 --json report.json")
    skipped = {
        result["check"]
        for result in json.loads((env.work / "report.json").read_text())["results"]
        if result["status"] == "skipped"
    }
    assert not skipped & {"entry_point_resolves", "config_composes", "config_safe", "config_round_trip"}
    env.run("fusionkit run fabrication=band train.epochs=1 hydra.run.dir=out")
    result = json.loads((env.work / "out/result.json").read_text())
    assert (result["status"], result["fabrication"]) == ("completed", "band")
    assert set(listed(env)) == {"band"}
