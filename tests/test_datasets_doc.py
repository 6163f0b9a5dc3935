"""The page about data sets is current, and what it shows works."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fusionkit import cli, registry
from fusionkit.cli import run
from fusionkit.config import compose
from fusionkit.experiment.data import load_data
from tests.fake_distributions import Site

PAGE = (Path(__file__).parents[1] / "docs/datasets.md").read_text(encoding="utf-8")
#: The language and the text of each block.
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def core_alone() -> Iterator[None]:
    """Without the plugins of this environment, which have data sets too."""
    with registry.isolated():
        yield


@pytest.mark.usefixtures("core_alone")
def test_the_table_has_every_set_of_the_core() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\| `.*$", PAGE, re.MULTILINE)]
    records = registry.records("dataset")
    assert [row[0].strip("`") for row in rows] == [record.name for record in records]
    for (_, count, views, task, licence, _), record in zip(rows, records, strict=True):
        data = load_data({"name": record.name}, task="auto")
        widths = ", ".join(f"{name} ({width})" for name, width in zip(data.views, data.dims, strict=True))
        about = record.to_dict()
        assert (int(count), views, task, licence) == (data.rows, widths, data.task.name, about["licence"])
        found = re.search(rf"^- `{record.name}`: (.*(?:\n  .*)*)", PAGE, re.MULTILINE)
        assert found is not None
        doi = re.search(r"doi:\S+", about["citation"])
        assert doi is None or doi[0] in found[1]


@pytest.mark.usefixtures("core_alone")
def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        (line, BLOCKS[i + 1][1])
        for i, (language, text) in enumerate(BLOCKS)
        if not language
        for line in text.splitlines()
        if line.startswith(("fusionkit list", "fusionkit show"))
    ]
    assert len(shown) == 2
    for line, output in shown:
        assert cli.main(shlex.split(line)[1:]) == 0
        assert [one.split() for one in capsys.readouterr().out.splitlines()] == [
            one.split() for one in output.splitlines()
        ]
    runs = re.findall(r"^fusionkit run (.*)$", PAGE, re.MULTILINE)
    assert len(runs) == 1
    for line in runs:
        run.parse(shlex.split(line))


def test_the_plugin(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    hook, function = (text for language, text in BLOCKS if language == "python")
    for name, text in (("my_data.plugin", hook), ("my_data.wine", function)):
        module = ModuleType(name)
        exec(text, module.__dict__)
        monkeypatch.setitem(sys.modules, name, module)
    with registry.isolated(sys.modules["my_data.plugin"]):
        cfg = compose(["data=wine"])
        assert set(cfg["data"]) - {"name"} == set(re.findall(r"`(\w+)`", PAGE[PAGE.index("its options are") :])[:5])
        data = load_data(cfg["data"], task="auto")
    assert (data.rows, data.dims, len(data.classes)) == (178, [1, 12], 3)
