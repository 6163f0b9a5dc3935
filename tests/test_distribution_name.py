"""The name for pip stands in every requirement, page and script, and in one place of the code."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fusionkit._util.distribution import DISTRIBUTION

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "fusionkit/scaffold/template"
PROJECTS = {
    ROOT: DISTRIBUTION,
    **{path.parent: f"tensor-{path.parent.name}" for path in ROOT.glob("plugins/*/pyproject.toml")},
}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", ".ci/run")),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("plugins/*/README.md"),
    *(path for path in TEMPLATE.rglob("*") if path.is_file()),
]


def of_before(name: str) -> bool:
    """Whether pip would take a name for one of other projects, or for none."""
    return re.fullmatch(r"fusionkit([-_.].*)?", name, re.IGNORECASE) is not None


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_projects(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == PROJECTS[folder]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = [Requirement(line).name for line in lines]
    assert DISTRIBUTION in names
    assert not [name for name in names if of_before(name)]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.is_file()], ids=lambda page: str(page.relative_to(ROOT))
)
def test_pages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    installed = [word for line in re.findall(r"pip install ([^`&\n#]*)", text) for word in line.split()]
    required = [
        line for found in re.findall(r"dependencies = \[(.*?)\]", text) for line in re.findall(r'"([^"]+)"', found)
    ]
    names = [re.split(r"[\[<>=~ ]", word.strip("'\""))[0] for word in (*installed, *required)]
    assert not [name for name in names if of_before(name)]


def test_the_template_requires_it() -> None:
    text = (TEMPLATE / "copier.yml").read_text(encoding="utf-8")
    assert re.search(rf"^requires:\n(  .*\n)*  default: {DISTRIBUTION}$", text, re.MULTILINE)


def names_in_code() -> Iterator[tuple[str, str]]:
    """Yield file and value of every string of the code that is a name for pip, docstrings aside."""
    for path in (ROOT / "fusionkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value == DISTRIBUTION:
                yield str(path.relative_to(ROOT)), node.value


def test_one_place_in_the_code() -> None:
    assert list(names_in_code()) == [("fusionkit/_util/distribution.py", DISTRIBUTION)]


def test_nothing_asks_for_the_name_of_before() -> None:
    asked = [
        (path.name, found)
        for path in (ROOT / "fusionkit").rglob("*.py")
        for found in re.findall(
            r'(?:version|distribution|requires|metadata)\(\s*"(fusionkit[^"]*)"', path.read_text("utf-8")
        )
    ]
    assert asked == []
