"""What the pages of docs/ show is right: tutorials and how-tos are followed, every command of every page is parsed."""

from __future__ import annotations

import contextlib
import io
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from fusionkit import cli
from fusionkit.cli import run as cli_run
from tests import pages
from tests.environments import PIP, Environment, build
from tests.exhaustive import exhaustive

#: Every page of the site that is written by hand, and the README.
PAGES = sorted(
    path.relative_to(pages.ROOT).as_posix()
    for path in [*pages.DOCS.rglob("*.md"), *pages.ROOT.glob("plugins/*/README.md"), pages.ROOT / "README.md"]
    if not {"_build", "project", "packages", "jupyter_execute", "introduction.md"} & {*path.parts}
)
#: Those that are followed in this process, word by word.  Where commands train, that takes minutes.
FOLLOWED = [
    *(f"docs/howto/{name}.md" for name in ("hypernetwork", "ensembles", "adapter")),
    "docs/tutorials/application.md",
    "docs/citing.md",
    "docs/wide.md",
    *exhaustive(["docs/index.md", "docs/tutorials/research.md"]),
]
EXTENSION = pages.read("docs/tutorials/extension.md")


def in_process(command: str) -> str:
    """Run a command of a page, and return what it prints."""
    if command.startswith(("pip ", "python3 -m venv ")):
        return ""  # It is installed.
    program, *arguments = shlex.split(command)
    if program != "fusionkit":
        found = [sys.executable if program == "python" else program, *arguments]
        return subprocess.run(found, check=True, capture_output=True, text=True).stdout
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        assert cli.main(arguments) == 0, out.getvalue()
    return out.getvalue()


@pytest.mark.usefixtures("empty_directory")
@pytest.mark.parametrize("name", FOLLOWED)
def test_followed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # inductor needs a compiler
    monkeypatch.setenv("COLUMNS", "200")
    pages.follow(pages.read(name), in_process)


@pytest.mark.parametrize("name", PAGES)
def test_commands_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command line of a page is one that its command can parse; what it does is tested elsewhere."""
    parsed: list[str] = []

    def invoke(self: click.Command, ctx: click.Context) -> Any:
        if isinstance(self, click.Group):
            return None  # Its own function; the command below it follows.
        if self.name == "run":
            cli_run.parse(ctx.args)
        parsed.append(str(self.name))
        return 0

    monkeypatch.setattr(click.Command, "invoke", invoke)
    lines = pages.commands(pages.read(name))
    for line in lines:
        assert cli.main(shlex.split(line)[1:]) == 0, line
    assert len(parsed) == len(lines)


@pytest.mark.parametrize("name", PAGES)
def test_python_is_python(name: str) -> None:
    for block in pages.python_blocks(pages.read(name)):
        compile(block, name, "exec")


def test_the_mistake_of_the_tutorial_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two classes of the page, before and after: the rule that the kit names is the one on the page."""
    monkeypatch.syspath_prepend(str(tmp_path))
    wrong, right = (block for block in pages.python_blocks(EXTENSION) if block.startswith("# midrange.py"))
    for name, text, status in (("wrong_midrange", wrong, 1), ("right_midrange", right, 0)):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        assert cli.main(["check", f"{name}:Midrange", "--select", "mask_restriction"]) == status


def test_the_citation_is_that_of_the_repository() -> None:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    about = yaml.safe_load(pages.read("CITATION.cff"))
    page = " ".join(pages.read("docs/citing.md").replace("{PyTorch}", "PyTorch").split())
    (author,) = about["authors"]
    for value in (author["name"], about["title"], about["version"], about["repository-code"], about["license"]):
        assert f"{{{value}}}" in page


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    if PIP is None:
        pytest.skip("pip is not installed")
    build(pages.ROOT, tmp_path / "dist")
    made = Environment(tmp_path, f"--no-index --find-links '{tmp_path / 'dist'}'")
    made.run("pip install 'tensor-fusionkit[run,new]'")
    return made


@pytest.mark.exhaustive
def test_the_extension_tutorial(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page as it stands, with fusionkit from its wheel in a fresh environment."""
    monkeypatch.chdir(environment.work)
    folder, statuses = ["true"], iter([1, 0])  # The first check finds the mistake.

    def run(command: str) -> str:
        status = next(statuses) if command.startswith("fusionkit check") else 0
        printed = environment.run(f"{' && '.join(folder)}\n{command} 2>&1", status=status)
        if command.startswith("cd "):
            folder.append(command)
        return printed

    pages.follow(EXTENSION, run)
