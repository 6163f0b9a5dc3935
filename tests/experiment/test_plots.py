from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from fusionkit.experiment.plots import _l_axis, _looks, draw_leaderboard, draw_missing
from tests.exhaustive import exhaustive


def colours(path: Path) -> int:
    """Return how many colours a picture has; a blank one has one."""
    with Image.open(path) as image:
        assert image.width > 800
        found = image.convert("RGB").getcolors(image.width * image.height)
    return len(found or ())


def points(count: int, table: str = "mfeat", **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            **{"table": table, "label": f"operator {i}", "l": 10 * i**2, "mean": 0.9 + i / 1000},
            **{
                "std": 0.01 if i else None,
                "ranked_by": "test accuracy",
                "less_is_better": False,
                "places": 4,
                **changes,
            },
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [3, *exhaustive([1, 60])])
def test_leaderboard_picture(tmp_path: Path, count: int) -> None:
    draw_leaderboard(points(count), tmp_path / "x.png")
    assert colours(tmp_path / "x.png") > 20


@pytest.mark.parametrize(
    ("sizes", "marks"),
    [
        ([41536], [40000, 50000, 60000, 70000, 80000]),
        ([855, 1400], [700, 800, 900, 1000, 2000]),
        ([186, 5000], [200, 500, 1000, 2000, 5000, 10000]),
        ([12, 41536], [10, 100, 1000, 10000]),
        ([0, 41536], [0, 10, 100, 1000, 10000]),
        ([0, 150], [0, 10, 20, 50, 100, 200]),
    ],
)
def test_the_axis_of_l_has_marks_in_any_range(sizes: list[int], marks: list[int]) -> None:
    axes = Figure().subplots()
    _l_axis(axes, sizes)
    assert list(axes.get_xticks()) == marks
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{mark:,}" for mark in marks]


def test_names_look_alike_wherever_they_stand() -> None:
    many = [f"name{i}" for i in range(70)]
    looks = _looks(reversed(many))
    assert looks == _looks(many)
    assert len({tuple(look.values()) for look in looks.values()}) == 70


def test_the_better_is_higher_in_the_leaderboard_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    rmse = points(1, "other", std=None, ranked_by="validation rmse", less_is_better=True, places=2, mean=12.3456)
    draw_leaderboard([*points(2), *rmse], tmp_path / "x.png")
    first, second = drawn[0].axes
    assert (first.get_title("left"), second.get_title("left")) == ("mfeat", "other")
    assert first.get_ylabel() == "test accuracy (mean ± std over seeds or folds)"
    assert second.get_ylabel() == "validation rmse (less is better)"
    assert (first.yaxis_inverted(), second.yaxis_inverted()) == (False, True)
    legend = second.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["operator 0  12.35"]


def test_leaderboard_picture_has_a_panel_per_table(tmp_path: Path) -> None:
    draw_leaderboard(points(3), tmp_path / "one.png")
    draw_leaderboard([*points(3), *points(3, "other $ data")], tmp_path / "two.png")
    heights = []
    for name in ("one.png", "two.png"):
        with Image.open(tmp_path / name) as image:
            heights.append(image.height)
    assert heights[1] == 2 * heights[0]


def test_picture_of_missing_views(tmp_path: Path) -> None:
    def row(name: str, low: float, *, baseline: bool = False, refuses: bool = False) -> dict[str, Any]:
        without = {"0": {"mean": 0.9}, "0.5": None if refuses else {"mean": low}}
        none = dict.fromkeys(without)
        return {
            "data": "mfeat",
            "name": name,
            "baseline": baseline,
            "without": without,
            "with": none if baseline else without,
        }

    good, bad = [row("a", 0.8), row("svm", 0.85, baseline=True), row("first", 0.0, refuses=True)], row("b", 0.1)
    draw_missing(good, tmp_path / "good.png")
    draw_missing([*good, bad], tmp_path / "bad.png")
    assert colours(tmp_path / "good.png") > 20
    assert colours(tmp_path / "bad.png") > 20


def test_the_worst_curve_of_missing_views_does_not_squeeze_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[float, float]] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: found.append(figure.axes[0].get_ylim()))
    lows = {"a": 0.8, "b": 0.85, "worst": 0.1}
    curves = {name: {"0": {"mean": 0.9}, "0.5": {"mean": low}} for name, low in lows.items()}
    rows = [
        {"data": "mfeat", "name": name, "baseline": False, "without": one, "with": one} for name, one in curves.items()
    ]
    draw_missing(rows, tmp_path / "x.png")
    assert found[0][0] == pytest.approx(0.78)
    assert found[0][1] > 0.9
