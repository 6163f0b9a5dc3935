from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from PIL import Image

from fusionkit.experiment.plots import draw_leaderboard, draw_run


def record(classes: list[Any], epochs: int = 5) -> dict[str, Any]:
    k = len(classes)
    return {
        "fusion": "parameterized_concatenation",
        "fabrication": "dense",
        "data": {"label": "mfeat"},
        "metrics": {"accuracy": 0.9},
        "n": 5,
        "l": 35,
        "seed": 0,
        "classes": classes,
        "confusion": (np.eye(k, dtype=int) * 9 + 1).tolist(),
        "history": {
            "loss": np.linspace(2, 1, epochs).tolist(),
            "accuracy": np.linspace(0.5, 0.9, epochs).tolist(),
            "lr": [0.1] * epochs,
        },
    }


def colours(path: Path) -> int:
    """Return how many colours a picture has; a blank one has one."""
    with Image.open(path) as image:
        assert image.width > 800
        found = image.convert("RGB").getcolors(image.width * image.height)
    return len(found or ())


@pytest.mark.parametrize("epochs", [1, 2, 300])
@pytest.mark.parametrize(
    "classes",
    [[0, 1], list(range(10)), [f"a rather long name {i}" for i in range(25)], ["$x_1$", "日本", "a_b^{", "\n"]],
    ids=["two", "ten", "twenty-five", "odd names"],
)
def test_run_picture(tmp_path: Path, classes: list[Any], epochs: int) -> None:
    draw_run(record(classes, epochs), tmp_path / "curve.png")
    assert colours(tmp_path / "curve.png") > 50


def test_same_record_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_run(record([0, 1]), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_matplotlibs_settings_are_left_alone_and_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_run(record([0, 1]), tmp_path / "a.png")
    monkeypatch.setitem(rcParams, "axes.facecolor", "red")
    draw_run(record([0, 1]), tmp_path / "b.png")
    assert rcParams["axes.facecolor"] == "red"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def rows(count: int, data: str = "mfeat") -> list[dict[str, Any]]:
    return [
        {"data": data, "label": f"operator {i}", "l": 10 * i**2, "accuracy": 0.9 + i / 1000, "std": 0.01 if i else None}
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 3, 60])
def test_leaderboard_picture(tmp_path: Path, count: int) -> None:
    draw_leaderboard(rows(count), tmp_path / "x.png")
    assert colours(tmp_path / "x.png") > 20


def test_leaderboard_picture_has_a_panel_per_data_set(tmp_path: Path) -> None:
    draw_leaderboard(rows(3), tmp_path / "one.png")
    draw_leaderboard([*rows(3), *rows(3, "other $ data")], tmp_path / "two.png")
    heights = []
    for name in ("one.png", "two.png"):
        with Image.open(tmp_path / name) as image:
            heights.append(image.height)
    assert heights[1] == 2 * heights[0]
