"""The site: its links to the repository, its check of links, what the reference and the notebook hold."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

import fusionkit
import fusionkit.config
import fusionkit.experiment
import fusionkit.fabrication
import fusionkit.fusion
import fusionkit.testing
from fusionkit.cli.commands import COMMANDS
from fusionkit.config.options import ModelOptions, Options, RunConfig, TableOptions, TrainOptions
from tests.page_scripts import page_script

ROOT = Path(__file__).parents[1]
HOST = "https://github.com/tensor-fusionkit/tensor-fusionkit"
TOUR = json.loads((ROOT / "docs/tour.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in TOUR["cells"] if cell["cell_type"] == "code"]


# ---------------------------------------------------------------------- pages from elsewhere in the repository


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("docs/study.md", "../study.md"),
        ("docs/study.md#a-heading", "../study.md#a-heading"),
        ("docs/images/views.png", "../images/views.png"),
        ("docs/published", f"{HOST}/tree/main/docs/published"),
        ("plugins/fusionkit-decision/", "../packages/decision.md"),
        ("plugins/fusionkit-decision/README.md#install", "../packages/decision.md#install"),
        ("CONTRIBUTING.md", "contributing.md"),
        ("fusionkit/builtin.py", f"{HOST}/blob/main/fusionkit/builtin.py"),
        ("fusionkit/fusions", f"{HOST}/tree/main/fusionkit/fusions"),
        ("README.md#install", f"{HOST}/blob/main/README.md#install"),
        ("https://semver.org", "https://semver.org"),
        ("#install", "#install"),
    ],
)
def test_links_of_a_file_at_the_root(link: str, url: str) -> None:
    relinked = page_script("_extensions/repository_pages").relinked
    assert relinked(f"See [it]({link}).", "CHANGELOG.md", "project/changelog") == f"See [it]({url})."


@pytest.mark.parametrize(
    ("source", "page", "link", "url"),
    [
        ("plugins/fusionkit-mlflow/README.md", "packages/mlflow", "../../docs/plugins.md", "../plugins.md"),
        ("plugins/fusionkit-mlflow/README.md", "packages/mlflow", "../fusionkit-decision", "decision.md"),
        (
            *("plugins/fusionkit-mlflow/README.md", "packages/mlflow", "tests"),
            f"{HOST}/tree/main/plugins/fusionkit-mlflow/tests",
        ),
        ("docs/tutorials/research.md", "tutorials/research", "../study.md#a", "../study.md#a"),
        ("docs/study.md", "study", "../README.md", f"{HOST}/blob/main/README.md"),
        ("docs/study.md", "study", "../CHANGELOG.md", "project/changelog.md"),
    ],
)
def test_links_of_other_files(source: str, page: str, link: str, url: str) -> None:
    relinked = page_script("_extensions/repository_pages").relinked
    assert relinked(f"[it]({link}), ![text]({link})", source, page) == f"[it]({url}), ![text]({url})"


# ---------------------------------------------------------------------- the check of links


def faults(site: Path, **pages: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the faults of a site with these pages, and the links that leave it."""
    for name, body in pages.items():
        (site / f"{name}.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    foreign: dict[str, list[str]] = defaultdict(list)
    return page_script("links", ".ci").faults(site, foreign), dict(foreign)


def test_a_good_site(tmp_path: Path) -> None:
    (tmp_path / "my script.js").touch()
    body = '<h1 id="b">B</h1><script src="my%20script.js?v=1"></script><img src="data:image/png;base64,AA" alt="a dot">'
    index = '<a href="other.html#b"></a><a href="#"></a><a href="https://x.org/"></a><a href="mailto:a@b.c"></a>'
    assert faults(tmp_path, index=index, other=body) == ([], {"https://x.org/": ["index.html"]})


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="missing.html"></a>', "no file missing.html"),
        ('<img src="missing.png" alt="a picture">', "no file missing.png"),
        ('<a href="#missing"></a>', "no anchor #missing"),
        (
            '<p id="here"></p><a href="index.html#here"></a><a href="index.html#there"></a>',
            "no anchor index.html#there",
        ),
        ('<script src="https://x.org/a.js"></script>', "loads https://x.org/a.js"),
        ('<link rel="stylesheet" href="//x.org/a.css">', "loads //x.org/a.css"),
        ('<img src="data:image/png;base64,AA">', "an image without a text: data:image/png;base64,AA"),
    ],
)
def test_faults_of_a_site(tmp_path: Path, body: str, fault: str) -> None:
    assert faults(tmp_path, index=body)[0] == [f"index.html: {fault}"]


# ---------------------------------------------------------------------- the reference


def test_every_public_name_has_an_entry() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/api").glob("*.md"))
    documented = set(re.findall(r"^\.\. (?:auto|py:)\w+:: ([\w.]+)", text, re.MULTILINE))
    assert {f"fusionkit.{name}" for name in fusionkit.__all__} - documented == {"fusionkit.__version__"}
    assert {"fusionkit.registry.register", "fusionkit.registry.isolated"} < documented
    # The faces of the core share names, each with one entry.
    faces = (fusionkit.config, fusionkit.experiment, fusionkit.fusion, fusionkit.fabrication, fusionkit.testing)
    names = {name.rpartition(".")[2] for name in documented}
    assert {name for face in faces for name in face.__all__} <= names
    assert {name for name in fusionkit.hookspecs.__all__ if name.startswith("fusionkit_")} <= names


@pytest.fixture(scope="module")
def reference_pages() -> ModuleType:
    return page_script("_extensions/reference_pages")


def test_every_command_has_its_help(reference_pages: ModuleType) -> None:
    names = list(reference_pages._names())
    assert [name for name in names if " " not in name] == list(COMMANDS)
    assert {"conf check", "conf show"} < set(names)
    for name in ("check", "conf show"):
        assert reference_pages._help(name).startswith(f"Usage: fusionkit {name} [OPTIONS]")


def test_every_option_has_a_row(reference_pages: ModuleType) -> None:
    page = reference_pages.run_options()
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `(.*?)` \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)}
    described = {name for name, field in RunConfig.model_fields.items() if field.description}
    groups: dict[str, type[Options]] = {"model": ModelOptions, "train": TrainOptions, "data": TableOptions}
    described |= {f"{group}.{name}" for group, model in groups.items() for name in model.model_fields if name != "name"}
    assert described <= set(rows)
    assert rows["train.epochs"] == ("an integer of at least 1", "`60`", "Passes over the training part.")
    assert rows["data.label"][1] == "required"


# ---------------------------------------------------------------------- the notebook


def test_the_notebook_is_committed_without_outputs() -> None:
    assert len(CELLS) > 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS)


def test_every_picture_of_the_notebook_has_a_text() -> None:
    drawing = [cell for cell in CELLS if "plt.subplots" in "".join(cell["source"])]
    assert len(drawing) == 4
    for cell in drawing:
        assert len(cell["metadata"]["mystnb"]["image"]["alt"]) > 40


@pytest.mark.exhaustive
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    module = ModuleType("tour")
    monkeypatch.setitem(sys.modules, "tour", module)  # For pickle.
    scope = module.__dict__
    found, changes = [], {"%matplotlib inline": "", "epochs = 20": "epochs = 2", "fusionkit.check(": "check("}
    scope |= {"check": lambda *args, **options: found.append(fusionkit.check(*args, **options))}
    with fusionkit.testing.isolated_registry():
        for cell in CELLS:
            source = "".join(cell["source"])
            for text, other in changes.items():
                source = source.replace(text, other)
            exec(source, scope)
    plt.close("all")
    assert scope["epochs"] == 2
    assert [report.ok for report in found] == [True, False]
    assert scope["correct"].float().mean() > 0.9
    assert min(scope["found"]["with view dropout"]) > 0.3
