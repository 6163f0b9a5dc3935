"""Progress where standard error is no terminal."""

from __future__ import annotations

import pytest

from fusionkit._util.progress import ProgressBar


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    time = [0.0]
    with ProgressBar(3, interval=10, clock=lambda: time[0]) as bar:
        bar.update(1, "1/3", "soon")
        time[0] = 11
        bar.update(2, "2/3", "left")
        bar.update(3, "3/3")
        bar.update(3, "end", now=True)
    assert capsys.readouterr() == ("", "2/3  left\nend\n")


def test_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(1, shown=False) as bar:
        bar.update(1, "1/1", now=True)
    assert capsys.readouterr() == ("", "")
