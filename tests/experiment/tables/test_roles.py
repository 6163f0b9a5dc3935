from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fusionkit.errors import FusionError
from fusionkit.experiment.source import Labels
from fusionkit.experiment.tables.columns import Place
from fusionkit.experiment.tables.roles import read_labels, read_role
from tests.messages import like


def labels(*columns: Any, tags: bool = False) -> Labels:
    names = [f"y{i}" for i in range(len(columns))]
    return read_labels(pd.DataFrame(dict(zip(names, columns, strict=True))), names, "t.csv", ".", tags)


def role(role: str, values: Any) -> Any:
    return read_role(role, pd.Series(values), Place("c", "t.csv"), ".")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], np.array([1, 2])),
        ([1.0, 2.5], np.array([1.0, 2.5])),
        ([True, False], np.array([True, False])),
        (["TRUE", "false"], np.array([True, False])),
        (["b", "a"], np.array(["b", "a"])),
        (["1 ", "2.5"], np.array([1.0, 2.5])),
        (["1", "x"], np.array(["1", "x"])),
        (pd.array([1, 2], dtype="Int64"), np.array([1, 2])),
        (pd.array([True, False], dtype="boolean"), np.array([True, False])),
        (pd.array([1, 2**63], dtype="uint64"), np.array([1.0, 2.0**63])),
    ],
)
def test_labels_keep_their_kind(values: Any, expected: Any) -> None:
    found = labels(values)
    np.testing.assert_array_equal(found.values, expected)
    assert found.values.dtype.kind == expected.dtype.kind
    assert (found.names, found.what) == (["y0"], "Column 'y0' of t.csv")


def test_several_labels() -> None:
    found = labels([1, 2], [0.5, 1.0])
    np.testing.assert_array_equal(found.values, [[1, 0.5], [2, 1]])
    assert (found.names, found.what) == (["y0", "y1"], "The label of t.csv")
    assert labels([True, False], ["true", "FALSE"]).values.dtype == np.bool_
    assert labels([1, 0], [2, 3]).values.dtype == np.int64
    assert labels([1, 0], ["a", "b"]).values.tolist() == [["1", "a"], ["0", "b"]]


def test_tags_are_left_as_they_stand() -> None:
    assert labels(["a;b", "NA", "1"], tags=True).values.tolist() == ["a;b", "NA", "1"]


def test_exact_text_of_ids_and_groups() -> None:
    assert role("id", ["007", "NA", "7"]).tolist() == ["007", "NA", "7"]
    assert role("group", ["007", "NA", "007"]).tolist() == ["007", "NA", "007"]


@pytest.mark.parametrize("name", ["split", "folds"])
def test_splits_and_folds_are_text_or_numbers(name: str) -> None:
    assert role(name, ["train", "test"]).tolist() == ["train", "test"]
    assert role(name, [0, 1]).tolist() == [0, 1]
    assert role(name, ["0", "1", "test"]).tolist() == ["0", "1", "test"]


def test_weights() -> None:
    found = role("weight", [0, 2])
    assert found.dtype == np.float64
    assert found.tolist() == [0.0, 2.0]
    assert role("weight", [True, False]).tolist() == [1.0, 0.0]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[1.0, None, np.nan], ["a", None, "NA"], ["a", "", " "], [True, None, None]])
def test_missing_labels(values: Any) -> None:
    with pytest.raises(FusionError, match=like("Column 'y0' of t.csv … a label … found 2 rows … the first is row 1.")):
        labels(values)


def test_missing_tags() -> None:
    with pytest.raises(FusionError, match=like("Column 'y0' of t.csv … found 1 row without, the first is row 1.")):
        labels(["a;b", ""], tags=True)


def test_infinite_label() -> None:
    with pytest.raises(FusionError, match=like("Column 'y0' of t.csv … found 1 infinite, the first in row 1.")):
        labels([0.5, np.inf])


def test_label_with_a_word_among_numbers() -> None:
    with pytest.raises(FusionError, match=like("Column 'y0' of t.csv … the first is '?' in row 1.")):
        labels(["1", "?", "2.5"])


@pytest.mark.parametrize("name", ["id", "group", "split", "folds", "weight"])
def test_missing_role(name: str) -> None:
    with pytest.raises(FusionError, match=like("Column 'c' of t.csv … found 1 row without, the first is row 1.")):
        role(name, ["1", ""])


def test_doubled_id() -> None:
    with pytest.raises(FusionError, match=like("Column 'c' of t.csv … found 'b' in row 1 and again in row 3.")):
        role("id", ["a", "b", "c", "b", "a"])


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, -0.5, -2], "-0.5 in row 1"),
        ([1, 1e300], "1e+300 in row 1"),
        (["a", "b"], "'a' in row 0"),
        ([1, np.inf], "1 infinite, the first in row 1"),
    ],
)
def test_no_weight(values: Any, found: str) -> None:
    with pytest.raises(FusionError, match=like(f"Column 'c' of t.csv … found {found}.")):
        role("weight", values)
