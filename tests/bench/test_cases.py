from __future__ import annotations

import pytest

from fusionkit import registry
from fusionkit.bench.cases import DENSE, EQUAL, LARGE, QUICK, STRUCTURED, Case, Size, cases, default_cases, label


def test_the_default_is_all_of_the_core() -> None:
    found = list(default_cases())
    names = {(case.kind, case.name) for case in found}
    expected = {
        (r.kind, r.key)
        for r in registry.records()
        if r.target.startswith(("fusionkit.fusions.", "fusionkit.fabrications."))
    }
    assert names == expected - {("fusion", "parameterized_concatenation")}
    assert len(found) == len({(case.name, case.size, case.backward, label(case.name, case.options)) for case in found})
    assert Case("kronecker", LARGE, True, {"p": 8, "q": 8}) in found


def test_quick_is_part_of_it() -> None:
    quick, found = list(default_cases(quick=True)), list(default_cases())
    assert {case.name for case in quick} == {case.name for case in found}
    assert {case.size for case in quick} == set(QUICK)
    assert len(quick) < len(found) / 3


@pytest.mark.parametrize(
    ("name", "kind", "grid"),
    [
        ("dense", "fabrication", DENSE),
        ("parameterized_concatenation", "fusion", DENSE),
        ("lorr", "fabrication", STRUCTURED),
        ("fusionkit/median", "fusion", EQUAL),
    ],
)
def test_grids(name: str, kind: str, grid: list[Size]) -> None:
    found = cases(name, {})
    assert {case.kind for case in found} == {kind}
    assert [(case.size, case.backward) for case in found] == [(size, both) for size in grid for both in (False, True)]


def test_given_sizes_replace_those_of_the_grid() -> None:
    found = cases("kronecker", {"p": 2, "m": 5, "dims": [3, 4], "n": 6})
    assert [case.size for case in found] == [Size(5, (3, 4), 6)] * 2
    assert all(case.options == {"p": 2} for case in found)
    assert label(found[0].name, found[0].options) == "kronecker p=2"
    assert {case.size.m for case in cases("kronecker", {"m": 5})} == {5}
    found = cases("kronecker", {"m": [5, 7, 5], "dims": [3, 4], "n": 6})
    assert [case.size for case in found if case.backward] == [Size(5, (3, 4), 6), Size(7, (3, 4), 6)]
