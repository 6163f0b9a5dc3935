"""The page about speed shows the recorded measurements."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fusionkit import registry

ROOT = Path(__file__).parents[1]
CONTENT: dict[str, Any] = json.loads((ROOT / "docs/bench.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bench_tables() -> ModuleType:
    spec = spec_from_file_location("bench_tables", ROOT / "docs/bench_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_record(bench_tables: ModuleType) -> None:
    page = (ROOT / "docs/bench.md").read_text(encoding="utf-8")
    assert bench_tables.updated(page, CONTENT) == page


def test_a_page_without_its_marks_is_refused(bench_tables: ModuleType) -> None:
    with pytest.raises(ValueError, match="should contain"):
        bench_tables.updated("nothing", CONTENT)


def test_all_of_the_core_was_measured() -> None:
    measured = {(row["kind"], row["name"]) for row in CONTENT["rows"]}
    core = {(r.kind, r.key) for r in registry.records() if r.distribution == "fusionkit"}
    assert measured == core - {("fusion", "parameterized_concatenation")}
