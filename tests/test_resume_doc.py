"""The commands of the page about stopped runs, one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from fusionkit import cli
from fusionkit.experiment import training

PAGE = (Path(__file__).parents[1] / "docs/resume.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.usefixtures("empty_directory")
def test_the_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save: Any = training._State.save

    def interrupted(state: Any, epoch: int) -> None:
        save(state, epoch)
        if epoch == 42:
            raise KeyboardInterrupt

    first, stopped, board, left_out, again, resumed = BLOCKS
    with monkeypatch.context() as patch:
        patch.setattr(training._State, "save", interrupted)
        assert cli.main(shlex.split(first)[1:]) == 130
    found = capsys.readouterr().err.splitlines()
    assert [found[0], found[-1]] == stopped.splitlines()
    assert cli.main(shlex.split(board)[1:]) == 1  # No run is completed.
    assert capsys.readouterr().err.splitlines()[:2] == left_out.splitlines()
    assert cli.main(shlex.split(again)[1:]) == 0
    found = [re.sub(r"  \d+ s left$", "", line) for line in capsys.readouterr().err.splitlines()]
    # The last digits of a loss depend on the processor.
    lines = [re.sub(r"\.\d+", "", line) for line in found]
    assert {re.sub(r"\.\d+", "", line) for line in resumed.splitlines()} <= {*lines}
