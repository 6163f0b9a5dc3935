"""The page about speed shows the recorded measurements, and the cost model agrees with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from page_scripts import page_script

from fusionkit import registry
from fusionkit.choice import Plan

ROOT = Path(__file__).parents[1]
CONTENT: dict[str, Any] = json.loads((ROOT / "docs/bench.json").read_text(encoding="utf-8"))
#: Rows of fabrications that can do both, with the time of the own product over that with W built.
CHOICES = [
    (row, row["built"] if row["own_product"] else row["built"] / row["product"])
    for row in CONTENT["rows"]
    if row["kind"] == "fabrication" and row["built"] and (row["own_product"] or row["product"])
]
#: What the noise of a measurement may add to the 10 % that a wrong choice may cost.
NOISE = 0.1
#: What may be missed where W is built: near the border the model prefers it; with a thin W the gradients make the own
#: product the better one earlier than the model, which is of the forward product, knows.
MISSED = {"forward": 1.4, "forward and backward": 1.8}


@pytest.fixture(scope="module")
def bench_tables() -> ModuleType:
    return page_script("bench_tables")


def test_the_tables_are_those_of_the_record(bench_tables: ModuleType) -> None:
    page = (ROOT / "docs/bench.md").read_text(encoding="utf-8")
    assert bench_tables.updated(page, CONTENT) == page


def test_every_link_of_the_index_leads_somewhere() -> None:
    page = (ROOT / "docs/bench.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(#of-(\w+)\)", page)
    assert links == list(dict.fromkeys(links)) == re.findall(r'<a id="of-(\w+)"></a>', page)
    assert set(links) == {row["name"] for row in CONTENT["rows"]}


def test_a_page_without_its_marks_is_refused(bench_tables: ModuleType) -> None:
    with pytest.raises(ValueError, match="should contain"):
        bench_tables.updated("nothing", CONTENT)


def test_all_of_the_core_was_measured() -> None:
    measured = {(row["kind"], row["name"]) for row in CONTENT["rows"]}
    core = {(r.kind, r.key) for r in registry.records() if r.distribution == "fusionkit"}
    assert measured == core - {("fusion", "parameterized_concatenation")}


def plan(row: dict[str, Any]) -> Plan | None:
    made = registry.create_fabrication(row["name"], **row["options"])
    with torch.device("meta"):
        made.prepare(row["n"], row["dims"])
    return made._plan


def test_the_choice_agrees_with_the_measurements() -> None:
    wrong, looked_at = [], 0
    for row, ratio in CHOICES:
        if (made := plan(row)) is not None:
            looked_at += 1
            own = made.decide(row["m"])
            bound = 1.1 + NOISE if own else MISSED[row["mode"]]
            loss = ratio if own else 1 / ratio
            if loss > bound:
                wrong.append(f"{row['name']} m={row['m']} D={sum(row['dims'])} n={row['n']} {row['mode']}: {loss:.2f}")
    assert looked_at > 100
    assert not wrong


def test_both_ways_are_the_better_one_somewhere() -> None:
    """Otherwise the test before could not fail."""
    planned = [ratio for row, ratio in CHOICES if plan(row) is not None]
    assert min(planned) < 0.2
    assert max(planned) > 1.1
