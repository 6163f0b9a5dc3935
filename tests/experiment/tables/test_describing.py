from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fusionkit.errors import FusionError
from fusionkit.experiment.tables.describing import Describer
from fusionkit.experiment.tables.format import Column
from tests.messages import like


def described(values: Any, **options: Any) -> Column:
    return Describer("t.csv", **options).column("c", pd.Series(values))


def refused(values: Any, sentence: str, **options: Any) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        described(values, **options)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "number"),
        ([1.5, np.nan], "number"),
        ([1, 1], "number"),
        ([True, False], "boolean"),
        (["TRUE", None, "false"], "boolean"),
        (["1", " 2"], "number"),
        (pd.array([1, None], dtype="Int64"), "number"),
        (pd.array([True, None], dtype="boolean"), "boolean"),
    ],
)
def test_kinds(values: Any, kind: str) -> None:
    assert described(values) == Column("c", kind)  # type: ignore[arg-type]


def test_categories_are_sorted() -> None:
    assert described(["b", "a", None, "b"]) == Column("c", "category", ("a", "b"), (True, True))
    assert described(["x", "x"]) == Column("c", "category", ("x",), (True,))
    assert described(pd.Categorical(["b", "a"])) == Column("c", "category", ("a", "b"), (True, True))


def test_categories_that_look_like_numbers() -> None:
    assert described([2, 1, 10], categorical={"c"}).categories == ("1", "10", "2")
    assert described([2.0, 1.0], categorical={"c"}) == Column("c", "category", ("1", "2"), (True, True), numeric=True)
    assert described(["1", "1.0", "x"], categorical={"c"}).categories == ("1", "x")
    assert described(["1", "1.0", "x", "y"]).categories == ("1", "1.0", "x", "y")


def test_mixed_types() -> None:
    refused([1, 2, "?"], "Column 'c' of t.csv … the first is '?' in row 2.  data.categorical=c ")


def test_rows_of_the_file_are_named() -> None:
    refused([1, 2, "?"], "Column 'c' … '?' in row 8.", rows=np.array([3, 4, 8]))


@pytest.mark.parametrize("values", [[None, None], [np.nan], ["", "NA"]])
def test_column_without_a_value(values: Any) -> None:
    refused(values, "Column 'c' of t.csv … found none.  data.drop=c ")
    refused(values, "Column 'c' of t.csv … found none.  data.drop=c ", categorical={"c"})


def test_too_many_categories() -> None:
    texts = [f"name {i}" for i in range(101)]
    assert len(described(texts[:100]).categories) == 100
    sentence = "Column 'c' of t.csv … 100 … found 101, such as 'name 0'.  data.drop=c … docs/your-own-data.md"
    refused([*texts, "name 0"], sentence)
    refused(texts, "Column 'c' of t.csv … data.drop=c leaves it out; data.id=c takes it as the name of the rows.")
    assert described(texts, max_categories=101).width == 101
    refused([1, 2, 3], "Column 'c' … 2 … found 3, such as '1'.", max_categories=2, categorical={"c"})
