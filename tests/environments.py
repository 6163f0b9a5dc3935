"""Fresh virtual environments with built wheels, for tests of what a user installs; nothing is downloaded."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distributions
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# What a new package needs besides tensor-fusionkit[run,new]; the build's own requirements, since nothing is downloaded.
TOOLS = ("pip", "hatchling", "hatch-fancy-pypi-readme", "editables", "pytest>=8.3", "hypothesis>=6.150")

# Not find_spec: setuptools answers it by switching off what torch's compiler needs.
PIP = next(iter(distributions(name="pip")), None)


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
    """A virtual environment; ``work`` is the empty folder in which commands run.

    Args:
        folder: where it is made.
        source: the options of pip that say where it finds distributions.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        venv.create(folder / "env", symlinks=True)
        self.site = next((folder / "env/lib").glob("python*/site-packages"))
        share(required(["tensor-fusionkit[run,new]", *TOOLS]).values(), folder / "shared")
        (self.site / "shared.pth").write_text(f"{folder / 'shared'}\n")
        programs = folder / "env/bin"
        python = programs / "python"
        offline = f"--quiet --no-build-isolation {source}"
        for name, command in {"pip": f'-m pip "$1" {offline} "${{@:2}}"', "pytest": '-m pytest "$@"'}.items():
            (programs / name).write_text(f"#!/usr/bin/env bash\nexec '{python}' {command}\n")
            (programs / name).chmod(0o755)
        dropped = ("FUSIONKIT_", "PYTEST_", "PYTHON", "COV_", "PIP_")
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(dropped)},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "XDG_DATA_HOME": str(folder / "data"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CONFIG_FILE": os.devnull,  # It may name other places to find distributions.
            "MPLBACKEND": "Agg",
            "COLUMNS": "120",
        }

    def run(self, script: str, *, status: int = 0) -> str:
        """Run lines of a shell, of which the first that fails is the last, and return what they print."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.work,
            env=self.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def where(self, module: str) -> Path:
        """Return the file from which a module is imported, seen from the folder ``work``."""
        return Path(self.run(f"python -c 'import {module}; print({module}.__file__)'").strip())


def build(folder: Path, dist: Path) -> None:
    """Build the wheel of the project in a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
