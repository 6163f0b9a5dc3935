"""Lines about missing cells, and about columns that number the rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.experiment.tables.conftest import Tables


def notes(tables: Tables, text: str, **options: Any) -> list[str]:
    return [note for note in tables.read(text, **options).notes if "name several views" not in note]


def test_missing_cells_are_counted_by_column(tables: Tables) -> None:
    text = "a__n,a__t,b__t,y\n1.5,x,u,p\n,x,,q\n2.5,,v,p\n,,v,q\n0.5,z,u,p\n"
    assert notes(tables, text, impute="mean") == [
        "Missing text counts as no category: 1 in 'a__t'.",  # Row 3 lacks the view a, row 1 the view b.
        "Means stand for missing numbers: 1 in 'a__n'.",
    ]


@pytest.mark.parametrize(
    ("numbers", "told"), [([0, 1, 2], True), ([7, 8, 9], True), ([1, 2, 4], False), ([3, 2, 1], False), ([1, 2], False)]
)
def test_a_column_that_numbers_the_rows(tables: Tables, numbers: list[int], told: bool) -> None:
    text = "Id,x,y\n" + "".join(f"{number},{number % 2}.5,{'pq'[i % 2]}\n" for i, number in enumerate(numbers))
    found = [note for note in notes(tables, text) if "'Id' numbers the rows" in note]
    assert ["data.id=Id" in note for note in found] == [True] * told


def test_nothing_to_tell(tables: Tables) -> None:
    assert not any("issing" in note or "numbers the rows" in note for note in notes(tables, "x,t,y\n1,u,p\n3,v,q\n"))
