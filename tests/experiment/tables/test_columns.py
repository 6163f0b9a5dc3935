from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fusionkit._util.text import value_text
from fusionkit.errors import FusionError
from fusionkit.experiment.tables.columns import MISSING, Cells, Place, categories, exact_text, number
from tests.messages import like

PLACE = Place("c", "the file")


def cells(*values: Any, decimal: str = ".") -> Cells:
    return Cells(pd.Series(list(values), dtype=object), PLACE, decimal)


@pytest.mark.parametrize("text", ["1", "-1.5", "+.5", "1.", "1e3", "1.5E-3", "inf", "-Infinity", "007"])
def test_a_number_is_what_python_reads(text: str) -> None:
    assert number(text, ".") == float(text)


@pytest.mark.parametrize("text", ["", "1_000", "0x1", "1,5", "1.2.3", "e5", ".", "one", "١", "1 2"])
def test_no_number(text: str) -> None:
    assert number(text, ".") is None


def test_number_with_a_comma() -> None:
    assert number("-1,5e2", ",") == -150.0
    assert number("1.5", ",") is None


def test_one_text_per_number() -> None:
    assert [value_text(value) for value in (1, 1.0, -2.0, 0.5, 1e30, 123456789.0)] == [
        "1", "1", "-2", "0.5", "1e+30", "123456789"
    ]  # fmt: skip


def test_missing_words_with_blanks_around_them() -> None:
    found = cells(*MISSING, *(f" {word} " for word in MISSING), None, np.nan, pd.NaT, pd.NA)
    assert found.values == []
    assert set(found.codes) == {-1}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", " 2 ", "x2"][:2], "number"),
        ([1, 2.5, Decimal("0.1"), None], "number"),
        (["true", "FALSE", "True", "tRUE"], "boolean"),
        ([True, None, False], "boolean"),
        (["a", "1"], "text"),
        (["a", "b", "1"], "text"),
        (["yes", "true"], "text"),
        ([None, None], "number"),
    ],
)
def test_kind(values: list[Any], kind: str) -> None:
    assert cells(*values).kind() == kind


def test_more_numbers_than_words_are_of_mixed_types() -> None:
    sentence = "Column 'c' of the file … found 1 word, the first is 'x' in row 2.  advice"
    with pytest.raises(FusionError, match=like(sentence)):
        cells("1", "2", "x").kind("advice")
    with pytest.raises(FusionError, match=like("Column 'c' of the file … found 1 word, the first is 'True' in row 0.")):
        cells("True", "2", "3").kind()


def test_half_numbers_are_categories() -> None:
    assert cells("1", "x", "2", "y", None).kind() == "text"


def test_a_decimal_comma_is_recognised() -> None:
    with pytest.raises(FusionError, match=like("… the first is '1,5' in row 1.  data.decimal=','?")):
        cells("1", "1,5").kind()
    with pytest.raises(FusionError, match=like("… the first is '1.5' in row 0.  data.decimal='.'?")):
        cells("1.5", "2,5", decimal=",").kind()


def test_numbers() -> None:
    np.testing.assert_array_equal(cells("1", None, "true", " 2.5", False).numbers(), [1, np.nan, 1, 2.5, 0])
    with pytest.raises(FusionError, match=like("Column 'c' … 2 words, the first is 'x' in row 1.")):
        cells("1", "x", "y").numbers()


def test_the_first_word_is_the_first_in_the_file() -> None:
    place = Place("c", "the file", np.array([7, 3, 5]))
    with pytest.raises(FusionError, match=like("… 2 words, the first is 'b' in row 3.")):
        Cells(pd.Series(["a", "b", "1"]), place).numbers()


def test_lists_are_no_cells() -> None:
    with pytest.raises(FusionError, match=like("Column 'c' of the file … found [1, 2].")):
        cells("a", [1, 2])


def test_text_stays_as_it_stands_but_for_blanks_around_it() -> None:
    codes, texts = categories(pd.Series([" a b", "1.0", None, " a b"]), PLACE, ".", numeric=False)
    assert codes.tolist() == [0, 1, -1, 0]
    assert texts == ["a b", "1.0"]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 1]),
        pd.Series([1.0, 2.0, 1.0]),
        pd.Series(["1", "2.0", "1.0"]),
        pd.Series([1, 2, 1], dtype="Int64"),
        pd.Series([1, 2, 1], dtype="category"),
        pd.Series([Decimal(1), Decimal("2.0"), Decimal("1.00")]),
    ],
)
def test_numbers_that_are_categories_have_one_text(column: pd.Series[Any]) -> None:
    codes, texts = categories(column, PLACE, ".", numeric=True)
    assert [texts[code] for code in codes] == ["1", "2", "1"]


def test_exact_text() -> None:
    assert exact_text(pd.Series(["007", "NA", " x"])) == ["007", "NA", " x"]
    assert exact_text(pd.Series([7, 8])) == ["7", "8"]
    assert exact_text(pd.Series([7.0, np.nan, 1.5])) == ["7", "", "1.5"]
    assert exact_text(pd.Series(["a", None], dtype=object)) == ["a", ""]
    assert exact_text(pd.Series(["a", pd.NA], dtype="string")) == ["a", ""]
