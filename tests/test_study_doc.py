"""The script that writes the tables of a study into docs/study.md."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.page_scripts import page_script

PAGE = Path(__file__).parents[1] / "docs/study.md"
DATA = ("mfeat", "digits", "breast_cancer")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return page_script("study_tables")


def study(*data: str) -> dict[str, Any]:
    """Return what study.json has, with one contestant on each data set."""
    row = {
        "name": "dense",
        "baseline": False,
        "on_front": True,
        "encoder": "none",
        "l": 5,
        "share_of_dense": 1.0,
        "parameters": 7,
        "count": 10,
        "mean": 0.75,
        "std": 0.125,
        "low": 0.5,
        "high": 1.0,
        "against": {},
    }
    # A backslash, which a replacement by re could take for an escape.
    missing = {"name": r"\1", "baseline": False, "count": 10, "without": {"0.5": {"mean": 0.5}}}
    missing |= {"with": {"0.5": None}, "gain": {"0.5": None}}
    return {"rows": [{**row, "data": name} for name in data], "missing": [{**missing, "data": name} for name in data]}


def test_tables_replace_those_of_the_page(script: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    new = script.with_tables(page, study(*DATA))
    for name in DATA:
        assert re.search(rf"(?m)^### {name}\n\n\| contestant \| l \|.*\n\|---.*\n\| \*\*`dense`\*\* \| 5 \|", new)
        expected = (
            f"### Missing views: {name}\n\n| contestant | folds | 0.5 |\n|---|---:|---:|\n| `\\1` | 10 | 0.5000 |\n\n"
        )
        assert expected in new
    text, new_text = (re.sub(r"(?m)^(### .*\n\n)(\|.*\n)+", r"\1", one) for one in (page, new))
    assert new_text == text
    assert script.with_tables(new, study(*DATA)) == new


def test_tables_of_one_data_set_leave_the_others(script: ModuleType) -> None:
    page = "### mfeat\n\n| a |\n\n### digits\n\n| b |\n\nText.\n\n### Missing views: digits\n\n| c |\n"
    new = script.with_tables(page, study("digits"))
    assert new.startswith("### mfeat\n\n| a |\n\n### digits\n\n| contestant |")
    assert "| b |" not in new
    assert "| c |" not in new


@pytest.mark.parametrize(
    ("page", "count"),
    [("### mfeat\n\nNo table.\n", 0), ("### mfeat\n\n| a |\n\n### mfeat\n\n| b |\n", 2)],
    ids=["none", "two"],
)
def test_a_heading_without_one_table(script: ModuleType, page: str, count: int) -> None:
    with pytest.raises(ValueError, match=rf"should have one table below the heading '### mfeat'; found {count}\.$"):
        script.with_tables(page, study("mfeat"))
