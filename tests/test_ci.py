"""The files of hosted CI agree with the project: its Python versions, its distributions, its scripts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
TEMPLATE = ROOT / "fusionkit/scaffold/template/project/.github/workflows/test.yml.jinja"


def project(folder: Path = ROOT) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
DISTRIBUTIONS = {project(folder)["name"] for folder in (ROOT, *PLUGINS)}


def jobs(workflow: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows" / workflow).read_text(encoding="utf-8"))["jobs"]
    return found


def matrix(workflow: str, job: str) -> dict[str, Any]:
    found: dict[str, Any] = jobs(workflow)[job]["strategy"]["matrix"]
    return found


def commands() -> Iterator[str]:
    for workflow in WORKFLOWS:
        for job in jobs(workflow.name).values():
            yield from (step["run"] for step in job.get("steps", ()) if "run" in step)


def test_python_versions_of_the_matrix_are_the_classifiers() -> None:
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(project()["classifiers"]))
    assert matrix("ci.yml", "quick")["python"] == classifiers
    assert f">={classifiers[0]}" == project()["requires-python"]


def test_oldest_torch_of_the_matrix_is_the_lower_bound() -> None:
    (torch,) = (need for need in map(Requirement, project()["dependencies"]) if need.name == "torch")
    oldest, newest = matrix("ci.yml", "quick")["torch"]
    assert str(torch.specifier) == f">={oldest.removesuffix('.0')}"
    tested = re.search(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert tested is not None
    assert oldest < tested[1] <= newest


def test_every_distribution_is_released() -> None:
    released = matrix("release.yml", "pypi")["distribution"]
    assert len(released) == len(DISTRIBUTIONS)
    assert set(released) == DISTRIBUTIONS


def test_dependabot_looks_into_every_distribution() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))["updates"]
    patterns = next(update["directories"] for update in updates if update["package-ecosystem"] == "pip")
    folders = {folder for pattern in patterns for folder in ROOT.parent.glob(f"{ROOT.name}{pattern.rstrip('/')}")}
    assert folders >= {ROOT, *PLUGINS}


def test_the_required_check_waits_for_every_job() -> None:
    found = jobs("ci.yml")
    assert {*found["passed"]["needs"], "passed"} == found.keys()


def test_scripts_that_are_called_can_be_run() -> None:
    texts = [*commands(), (ROOT / ".ci/run").read_text(encoding="utf-8")]
    called = {name for text in texts for name in re.findall(r"(?<![\w/])\.ci/[\w.-]+", text)}
    assert {".ci/install", ".ci/lint", ".ci/tests", ".ci/tag.py"} <= called
    assert not [name for name in called if not (ROOT / name).is_file()]
    assert not [name for name in called if not name.endswith(".py") and not os.access(ROOT / name, os.X_OK)]


@pytest.mark.parametrize("path", [*WORKFLOWS, TEMPLATE], ids=lambda path: path.name)
def test_actions_are_pinned_by_hash(path: Path) -> None:
    for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) or line.startswith("./.github/workflows/")


def test_one_hash_for_each_action() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (*WORKFLOWS, TEMPLATE))
    found: dict[str, set[str]] = {}
    for action, pin in re.findall(r"uses: ([\w./-]+)@(.*)", text):
        found.setdefault("/".join(action.split("/")[:2]), set()).add(pin)
    assert {action: pins for action, pins in found.items() if len(pins) > 1} == {}


@pytest.mark.parametrize(("tag", "status"), [(f"v{project()['version']}", 0), (project()["version"], 1), ("v9", 1)])
def test_tag(tag: str, status: int) -> None:
    done = subprocess.run([sys.executable, ".ci/tag.py", tag], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert len(done.stdout.splitlines()) == (len(DISTRIBUTIONS) if status else 0)
    assert status == 0 or f"found {tag}." in done.stdout
