"""The built distributions: what they contain, what they say of themselves, and that the wheel works elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# The source distribution of the core has no plugins.
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
REPOSITORY = "https://github.com/tensor-fusionkit/tensor-fusionkit"
#: Of the packages that `fusionkit new` writes.
TEMPLATE = ROOT / "fusionkit/scaffold/template/project/pyproject.toml.jinja"
#: Labels of the links that PyPI shows beside a project.
URLS = {"Documentation", "Source", "Changelog", "Issues"}


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


VERSION = project(ROOT)["version"]


class Built:
    """Both distributions of one project: the names of their files, and the metadata."""

    def __init__(self, folder: Path, dist: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "hatchling", "build", "-d", str(dist)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (self.wheel,), (archive,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
        with zipfile.ZipFile(self.wheel) as wheel:
            self.in_wheel = set(wheel.namelist())
            self.texts = {name: wheel.read(name).decode() for name in self.in_wheel if ".dist-info/" in name}
        with tarfile.open(archive) as sdist:
            self.in_sdist = {name.partition("/")[2] for name in sdist.getnames()}
        self.metadata: Message = Parser().parsestr(self.text("METADATA"))

    def text(self, name: str) -> str:
        """Return a file of the folder ``.dist-info``."""
        return next(text for path, text in self.texts.items() if path.endswith(f".dist-info/{name}"))


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(ROOT, tmp_path_factory.mktemp("core"))


@pytest.fixture(scope="module", params=PROJECTS, ids=lambda folder: folder.name if folder != ROOT else "core")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, core: Built) -> Built:
    return core if request.param == ROOT else Built(request.param, tmp_path_factory.mktemp("dist"))


def test_wheel_of_the_core(core: Built) -> None:
    for name in ("conf/config.yaml", "conf/fusion/summation.yaml", "data/mfeat.npz", "data/README.md"):
        assert f"fusionkit/{name}" in core.in_wheel
    assert core.metadata["Name"] == "tensor-fusionkit"
    assert "fusionkit = fusionkit.cli:main" in core.text("entry_points.txt")
    assert "builtin = fusionkit.builtin" in core.text("entry_points.txt")


def test_source_distribution_of_the_core(core: Built) -> None:
    wanted = {"conf/config.yaml", "README.md", "tests/test_packaging.py"}
    assert wanted <= core.in_sdist
    assert not [name for name in core.in_sdist if name.startswith("plugins/")]


def test_files_of_every_distribution(built: Built) -> None:
    package = next(path.parent.name for path in built.folder.glob("fusionkit*/__init__.py"))
    assert f"{package}/py.typed" in built.in_wheel
    assert {name.split("/")[0].split("-")[0] for name in built.in_wheel} == {
        package,
        project(built.folder)["name"].replace("-", "_"),
    }
    assert {"LICENSE", "NOTICE", f"{package}/py.typed", "pyproject.toml"} <= built.in_sdist


def test_licence_of_every_distribution(built: Built) -> None:
    assert built.metadata["License-Expression"] == "Apache-2.0"
    assert built.metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert built.text("licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    name = "fusionkit" if built.folder == ROOT else built.metadata["Name"]
    assert built.text("licenses/NOTICE").splitlines()[:2] == [name, "Copyright 2026 The fusionkit developers"]


def test_metadata_of_every_distribution(built: Built) -> None:
    metadata = built.metadata
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == ">=3.11"
    classifiers = set(metadata.get_all("Classifier", []))
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)} <= classifiers
    assert "Typing :: Typed" in classifiers
    urls = dict(value.split(", ", 1) for value in metadata.get_all("Project-URL", []))
    assert set(urls) == URLS
    assert all(url.startswith((REPOSITORY, "https://tensor-fusionkit.github.io/")) for url in urls.values())


def test_plugins_require_this_minor_version() -> None:
    minor = VERSION.rpartition(".")[0]
    for folder in PROJECTS[1:]:
        assert f"tensor-fusionkit>={minor}" in project(folder)["dependencies"], folder.name


def lower_bounds(text: str) -> dict[str, Version]:
    """Return the lower bounds of requirements in the text of a pyproject.toml."""
    return {name: Version(bound) for name, bound in re.findall(r'"([a-z0-9-]+)>=([0-9.]+)', text)}


@pytest.mark.parametrize(
    "path", [*(folder / "pyproject.toml" for folder in PROJECTS[1:]), TEMPLATE], ids=lambda path: path.parent.name
)
def test_plugins_admit_nothing_older_than_the_core(path: Path) -> None:
    """.ci/lowest tries each plugin with the versions that it has installed for the core."""
    core, found = (lower_bounds(one.read_text(encoding="utf-8")) for one in (ROOT / "pyproject.toml", path))
    assert {"pytest"} <= found.keys() & core.keys()
    assert {name: str(found[name]) for name in found.keys() & core.keys() if found[name] < core[name]} == {}


def test_version_is_said_once_more_by_the_citation_and_the_changelog() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert next(one for one in versions if one != "Unreleased") == VERSION


class Links(HTMLParser):
    """The links and pictures of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {"href": [], "src": []}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in self.found:
                self.found[name].append(value or "")


def test_description_as_pypi_renders_it(built: Built) -> None:
    """No link or picture is relative, and those of this repository are of this version's tag and lead to a file."""
    markdown = pytest.importorskip("readme_renderer.markdown", reason="readme-renderer is of the group dev")
    assert built.metadata["Description-Content-Type"].partition(";")[0] == "text/markdown"
    html = markdown.render(built.metadata.get_payload())
    assert html is not None
    links = Links(html).found
    raw = REPOSITORY.replace("github.com", "raw.githubusercontent.com")
    places = {"href": f"{REPOSITORY}/blob/v{VERSION}/", "src": f"{raw}/v{VERSION}/"}
    assert [one for found in links.values() for one in found if not one.startswith(("https://", "#"))] == []
    for kind, place in places.items():
        own = [one for one in links[kind] if one.startswith((REPOSITORY, raw))]
        assert [one for one in own if not one.startswith(place)] == []
        paths = [one.removeprefix(place).partition("#")[0] for one in own]
        # The source distribution of the core has no plugins.
        assert [path for path in paths if not (ROOT / path).exists() and (ROOT / "plugins").exists()] == []
    if built.folder == ROOT:
        assert len(links["src"]) >= 2


@pytest.mark.exhaustive
def test_wheel_works_in_another_directory(core: Built, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(core.wheel) as wheel:
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
