"""The page about several processes shows the recorded measurements, and its projection agrees with them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.page_scripts import page_script

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def scale_tables() -> ModuleType:
    return page_script("scale_tables")


@pytest.fixture(scope="module")
def content() -> Any:
    return json.loads((DOCS / "scale.json").read_text(encoding="utf-8"))


def test_the_tables_are_those_of_the_record(scale_tables: ModuleType, content: Any) -> None:
    text = (DOCS / "scale.md").read_text(encoding="utf-8")
    assert scale_tables.updated(text, content) == text


def test_the_record_has_what_the_page_promises(content: Any) -> None:
    assert [step["rows"] for step in content["steps"]] == [128, 1024, 8192]
    assert all(step["ratio"] >= 0.9 * step["bare"] for step in content["steps"])
    assert [one["jobs"] for one in content["sweeps"]] == [10, 100, 1000]


def test_the_projection_has_the_constants_of_what_it_is_fitted_to(scale_tables: ModuleType) -> None:
    model = scale_tables.Model(2e-3, 4e-6, 1e-3, scale_tables.Network(2e-4, 5e8))
    steps = [
        {"rows": rows, "one": rows / model.seconds(1, rows), "two": rows / model.seconds(2, rows)}
        for rows in (128, 1024, 8192)
    ]
    sums = [{"numbers": count, "seconds": 2 * (2e-4 + 4 * count / (2 * 5e8))} for count in (1, 2**17, 2**24)]
    found = scale_tables.Model.of({"steps": steps, "sums": sums})
    assert (found.step, found.row, found.added) == pytest.approx((2e-3, 4e-6, 1e-3), rel=1e-4)
    assert (found.network.latency, found.network.bandwidth) == pytest.approx((2e-4, 5e8), rel=1e-4)


@pytest.mark.parametrize(("rows", "width"), [(1024, 2048), (8192, 2048), (8192, 65536)])
def test_beyond_the_best_number_of_processes_a_step_takes_longer(
    rows: int, width: int, scale_tables: ModuleType
) -> None:
    model = scale_tables.Model(2e-3, 4e-6, 1e-3, scale_tables.Network(2e-4, 5e9))
    best = model.most(rows, width)
    assert best > 1
    seconds = [model.seconds(count, rows, width) for count in (best - 1, best, best + 1)]
    assert min(seconds) == seconds[1]


def test_a_page_without_its_marks_is_refused(scale_tables: ModuleType, content: Any) -> None:
    with pytest.raises(ValueError, match="should contain"):
        scale_tables.updated("nothing", content)


def test_the_pictures_are_drawn(scale_tables: ModuleType, content: Any, tmp_path: Path) -> None:
    scale_tables.draw(content, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scale_processes.png", "scale_sweeps.png"]
