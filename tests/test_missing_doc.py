"""What the page about missing views shows works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from fusionkit.cli import run
from fusionkit.config import compose
from tests.pages import python_blocks

PAGE = (Path(__file__).parents[1] / "docs/missing.md").read_text(encoding="utf-8")
BLOCKS = python_blocks(PAGE)


def test_the_calls_of_an_operator() -> None:
    found: dict[str, torch.Tensor] = {}
    for block in BLOCKS[:3]:
        exec(block, found)
    views, out, pair = found["views"], found["out"], found["pair"]
    assert torch.equal(out, pair([views[0], views[2]]))  # type: ignore[operator]
    assert found["mask"].shape == (32, 3)
    assert found["mask"].any(-1).all()


def test_the_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, object] = {}
    for block in BLOCKS[3:]:
        exec(block.replace("epochs=10", "epochs=1").replace("cv=3", "cv=2"), scope)
    accuracies = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert len(accuracies) == 3
    assert all(0.3 < accuracy < 1 for accuracy in accuracies)


def test_the_commands_are_taken() -> None:
    lines = re.findall(r"^fusionkit run (.*)$", PAGE, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        run.parse(shlex.split(line))
        assert compose(shlex.split(line))["seed"] == 0
