"""Every registered fabrication keeps every property, over its examples and over all kinds of sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fabrication_properties import PROPERTIES, SLOW_PROPERTIES, Case, cases, name_of

from fusionkit import registry

CASES = [
    case
    for record in registry.records("fabrication")
    if record.distribution == "fusionkit"
    for case in cases(record.name, *(dict(o) for o in registry.load("fabrication", record.name).examples() if o))  # type: ignore[attr-defined]
]
#: Two sizes of each: views that do not divide, and n > D.
FEW = [case for case in CASES if (case.n, list(case.dims)) in ((5, [3, 4]), (13, [2, 3]))]


def ids(thing: Case) -> str:
    return f"{thing.name}-{thing}"


@pytest.mark.parametrize("prop", PROPERTIES, ids=name_of)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_property(prop: Callable[[Case], None], case: Case) -> None:
    prop(case)


@pytest.mark.parametrize("prop", SLOW_PROPERTIES, ids=name_of)
@pytest.mark.parametrize("case", FEW, ids=ids)
def test_slow_property(prop: Callable[[Case], None], case: Case) -> None:
    prop(case)
