from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.preprocessing import OneHotEncoder

from fusionkit.errors import FusionError
from fusionkit.experiment.tables.format import Column, TableFormat, View
from tests.experiment.tables.conftest import equal
from tests.messages import like

AGE, OK = Column("age", "number"), Column("ok", "boolean")
SEX = Column("sex", "category", ("f", "m"), (True, True))
ZIP = Column("zip", "category", ("1", "2"), (True, False), numeric=True)
TABLE = TableFormat((View("b", (AGE, SEX)), View("a", (ZIP, OK))), id="p", decimal=",", impute="mean")
STRICT = TableFormat(TABLE.views)


def encode(table: TableFormat = TABLE, **columns: Any) -> tuple[list[Any], dict[str, int]]:
    whole = {"age": [1.0], "sex": ["f"], "zip": [1], "ok": [True], **columns}
    rows = max(map(len, whole.values()))
    return table.encode(pd.DataFrame({key: list(v) * (rows // len(v)) for key, v in whole.items()}), "the DataFrame")


def test_dims_and_names() -> None:
    assert TABLE.dims == [3, 3]
    assert TABLE.names() == {"b": ["age", "sex=f", "sex=m"], "a": ["zip=1", "zip=2", "ok"]}


def test_one_hot_is_that_of_scikit_learn() -> None:
    letters = np.random.default_rng(0).choice(list("abcde"), 101)
    column = Column("c", "category", tuple("abcde"), (True,) * 5)
    (view,), unseen = TableFormat((View("v", (column,)),)).encode(pd.DataFrame({"c": letters}), "X")
    equal(view, OneHotEncoder(sparse_output=False).fit_transform(letters[:, None]))
    assert unseen == {}


def test_columns_are_found_by_name() -> None:
    frame = pd.DataFrame({"other": ["x"], " ok ": [False], "zip": ["1.0"], "sex": ["m"], "age": [7]})
    (b, a), unseen = STRICT.encode(frame, "X")
    equal(b, [[7, 0, 1]])
    equal(a, [[1, 0, 0]])
    assert unseen == {}


@pytest.mark.parametrize("zip_code", [[1], [1.0], ["1"], ["1,0"], pd.array([1], dtype="Int64"), pd.Categorical([1])])
def test_numbers_that_are_categories(zip_code: Any) -> None:
    (_, a), _ = encode(zip=zip_code)
    equal(a, [[1, 0, 1]])


def test_unseen_and_missing_categories_are_zeros() -> None:
    (b, a), unseen = encode(sex=["f", "x", None, "x"], zip=[1, 2, 3, None])
    equal(b, [[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    equal(a, [[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert unseen == {"sex": 2, "zip": 2}


def test_view_without_a_cell_is_absent() -> None:
    (b, a), unseen = encode(STRICT, age=[1, None], sex=["m", "NA"], zip=[None, 1], ok=[None, True])
    equal(b, [[1, 0, 1], [np.nan] * 3])
    equal(a, [[np.nan] * 3, [1, 0, 1]])
    assert unseen == {}


def test_categorical_view_may_be_absent() -> None:
    table = TableFormat((View("v", (SEX,)),))
    (view,), _ = table.encode(pd.DataFrame({"sex": ["m", None, "x"]}), "X")
    equal(view, [[0, 1], [np.nan, np.nan], [0, 0]])


def test_missing_numbers_are_nan_where_they_are_imputed() -> None:
    (b, _), _ = encode(age=[1, None])
    equal(b, [[1, 1, 0], [np.nan, 1, 0]])


def test_missing_booleans_are_missing_numbers() -> None:
    (_, a), _ = encode(ok=[True, None, False])
    equal(a[:, 2], [1, np.nan, 0])


def test_numbers_as_text() -> None:
    (b, _), _ = encode(age=[" 1,5", "2", "NA"])
    equal(b[:, 0], [1.5, 2, np.nan])


def test_no_rows() -> None:
    (b, a), unseen = TABLE.encode(pd.DataFrame({"age": [], "sex": [], "zip": [], "ok": []}), "X")
    assert (b.shape, a.shape, unseen) == ((0, 3), (0, 3), {})


# -- bad input ---------------------------------------------------------------------------------------------------------


def refused(sentence: str, table: TableFormat = STRICT, **columns: Any) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        encode(table, **columns)


def test_missing_column() -> None:
    with pytest.raises(
        FusionError, match=like("The column 'age' of the view 'b' … in X; found none. Did you mean 'agee'?")
    ):
        STRICT.encode(pd.DataFrame({"agee": [1]}), "X")


def test_doubled_column() -> None:
    with pytest.raises(FusionError, match=like("The column 'age' … in X once; found it 2 times.")):
        STRICT.encode(pd.DataFrame([[1, 2]], columns=["age", "age"]), "X")


def test_words_in_a_numeric_column() -> None:
    refused("Column 'age' of the DataFrame … found 1 word, the first is 'x' in row 1.", age=[1, "x", 3])
    refused("Column 'ok' of the DataFrame … found 1 word, the first is 'yes' in row 0.", ok=["yes"])


def test_missing_numbers_are_counted() -> None:
    refused("Column 'age' … view 'b'; found 2, the first in row 1.  A run with data.impute=mean", age=[1, None, None])
    refused("Column 'ok' … view 'a'; found 1, the first in row 0.  A run with data.impute=mean", ok=[None, True])


def test_infinite_numbers() -> None:
    refused("Column 'age' … found 1 infinite, the first in row 1.", TABLE, age=[1, np.inf])


def test_rows_as_they_are_numbered() -> None:
    frame = pd.DataFrame({"age": [1, None], "sex": ["f", "f"]})
    with pytest.raises(FusionError, match=like("Column 'age' … in row 17.")):
        STRICT.encode_view(STRICT.views[0], frame, "X", np.array([16, 17]))


# -- what the training part has seen -----------------------------------------------------------------------------------


def test_fitted_counts_what_the_training_part_has() -> None:
    (b, a), _ = encode(STRICT, sex=["f", "m", None, "f"], age=[1, 2, None, 3])
    table, views = STRICT.fitted({"b": b, "a": a}, np.array([0, 2]))
    assert table.views[0].columns == (AGE, Column("sex", "category", ("f", "m"), (True, False)))
    assert table.views[1].columns[0].seen == (True, False)
    equal(views["b"], [[1, 1, 0], [2, 0, 0], [np.nan] * 3, [3, 1, 0]])
    equal(views["a"], a)
    assert table.dims == STRICT.dims


def test_fitted_encodes_as_it_returned() -> None:
    columns = {"sex": ["f", "m", "m"], "zip": [1, 1, 3], "age": [1, 2, 3]}
    views = dict(zip("ba", encode(STRICT, **columns)[0], strict=True))
    table, fitted = STRICT.fitted(views, np.array([True, False, False]))
    again, unseen = encode(table, **columns)
    equal(again[0], fitted["b"])
    equal(again[1], fitted["a"])
    assert unseen == {"sex": 2, "zip": 1}


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_json_and_back() -> None:
    described = TABLE.to_json()
    assert TableFormat.from_json(json.loads(json.dumps(described, sort_keys=True))) == TABLE
    assert described["views"][0]["columns"][1] == {
        "name": "sex",
        "kind": "category",
        "categories": ["f", "m"],
        "seen": [True, True],
        "numeric": False,
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["views"], None),
        (["views"], {}),
        (["views", 0, "name"], 3),
        (["views", 0, "columns", 0, "kind"], "words"),
        (["views", 0, "columns", 1, "seen"], [True]),
        (["views", 0, "columns", 1, "seen"], [1, 0]),
        (["views", 0, "columns", 1, "categories"], [1, 2]),
        (["views", 0, "columns", 0, "categories"], ["x"]),
        (["id"], 3),
        (["files"], ["a", "b"]),
        (["impute"], "median"),
        (["decimal"], None),
    ],
)
def test_damaged_description(path: list[Any], value: Any) -> None:
    described = node = copy.deepcopy(STRICT.to_json())
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ValidationError):
        TableFormat.from_json(described)


@pytest.mark.parametrize("value", [None, [], 3, {}, "x"])
def test_no_description(value: Any) -> None:
    with pytest.raises(ValidationError):
        TableFormat.from_json(value)


def test_pandas_is_not_imported() -> None:
    code = "import sys, fusionkit.experiment.tables.format; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
