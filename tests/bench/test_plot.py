from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from fusionkit.bench.measure import Row
from fusionkit.bench.plot import _panel, _panels, draw


def row(name: str, m: int, n: int = 4, mode: str = "forward", built: float | None = 0.5) -> Row:
    ratios = {"limit": 1.1, "cat_linear": 0.9, "built": built, "product": None, "library": None, "compiled": None}
    return Row(
        name=name,
        options={},
        kind="fabrication",
        m=m,
        dims=[2, 2],
        n=n,
        dtype="float32",
        positive=False,
        mode=mode,
        milliseconds=1.0 * m,
        ratios=ratios,
        skips_materialization=True,
        extra_bytes=8,
        error=0.0,
        spread=1.0,
    )


def test_draw(tmp_path: Path) -> None:
    rows = [row(name, m, built=None if name == "dense" else 0.5) for name in ("dense", "lowrank") for m in (1, 10, 100)]
    assert draw(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_one_number_of_rows_makes_no_picture(tmp_path: Path) -> None:
    assert not draw([row("dense", 1), row("dense", 2, mode="forward and backward")], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_the_size_with_the_most_numbers_of_rows_is_shown() -> None:
    rows = [row("a", 9, n=8), row("a", 5), row("a", 1), row("b", 1)]
    panels = _panels(rows)
    assert [r.m for r in panels["a"]] == [1, 5]
    assert {r.n for r in panels["a"]} == {4}
    assert list(panels) == ["a", "b"]


def test_other_operators_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionkit.bench import plot

    drawn: list[str] = []
    monkeypatch.setattr(plot, "_panel", lambda axes, name, rows: drawn.append(name))
    assert draw([row("a", 1), row("a", 2), row("b", 1)], tmp_path / "a.png")
    assert drawn == ["a"]


@pytest.mark.parametrize("milliseconds", [(1.0, 1.5, 3.0), (0.1, 10.0, 5000.0)])
def test_labels_can_be_read(milliseconds: tuple[float, ...]) -> None:
    """The numbers of rows that were measured, and a few times, none over another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6, 2.2), dpi=110)
    axes = figure.subplots()
    rows = [
        replace(row("a", m, built=None), milliseconds=time) for m, time in zip((16, 64, 256), milliseconds, strict=True)
    ]
    _panel(axes, "a", rows)
    figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["16", "64", "256"]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        labels = [label for label in axis.get_ticklabels(which="both") if label.get_text()]
        seen = [label for label, at in zip(labels, axis.get_ticklocs(), strict=False) if low <= at <= high]
        boxes = [label.get_window_extent() for label in seen]
        assert len(boxes) >= 2
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
