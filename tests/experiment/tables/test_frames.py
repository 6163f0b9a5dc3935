"""Data frames as views in memory: values against pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fusionkit.errors import FusionError
from fusionkit.experiment.tables.frames import encode_frames, frame_labels, frame_role
from tests.messages import like


def patients() -> pd.DataFrame:
    return pd.DataFrame(
        {"age": [30, 41, 52, 63], " sex": ["f", "m", "f", "f"], "smokes": [True, False, True, True], 7: [0.5, 1, 2, 3]},
        index=[3, 1, 4, 2],
    )


def scans() -> pd.DataFrame:
    return pd.DataFrame({"x": [1.0, np.nan, 3, 4], "y": [5.0, np.nan, 7, 8]}, index=[3, 1, 4, 2])


def test_columns_are_encoded_as_pandas_encodes_them() -> None:
    arrays, table = encode_frames({"who": patients(), "scan": scans()}, None, whole=True)
    wanted = pd.get_dummies(patients(), columns=[" sex"])[["age", " sex_f", " sex_m", "smokes", 7]]
    assert [*arrays] == ["who", "scan"]
    np.testing.assert_array_equal(arrays["who"], wanted.to_numpy(float))
    np.testing.assert_array_equal(arrays["scan"], scans().to_numpy())
    assert table is not None
    assert table.names() == {"who": ["age", "sex=f", "sex=m", "smokes", "7"], "scan": ["x", "y"]}
    again, unseen = table.encode(patients().join(scans()), "the frame")
    np.testing.assert_array_equal(again[0], arrays["who"])
    assert unseen == {}


@pytest.mark.parametrize("second", ["smokes", "age"])
def test_without_one_table_columns_should_be_numbers(second: str) -> None:
    numbers = patients()[["age", "smokes"]]
    other = scans().rename(columns={"x": second})
    arrays, table = encode_frames({"who": numbers, "scan": other}, None, whole=True)
    np.testing.assert_array_equal(arrays["who"], numbers.to_numpy(float))
    assert table is None
    assert encode_frames({"who": numbers}, None, whole=False)[1] is None
    for frames, whole in (({"who": patients(), "scan": other}, True), ({"who": patients()}, False)):
        with pytest.raises(FusionError, match=like("Column 'sex' of view 'who' should contain numbers, … found text.")):
            encode_frames(frames, None, whole=whole)


def test_single_missing_numbers_are_refused_or_left_to_the_scaler() -> None:
    frame = scans()
    frame.loc[4, "y"] = np.nan
    with pytest.raises(FusionError, match=like("Column 'y' of view 'scan' … found 1, the first in row 2.")):
        encode_frames({"scan": frame}, None, whole=True)
    arrays, table = encode_frames({"scan": frame}, "mean", whole=True)
    np.testing.assert_array_equal(arrays["scan"], frame.to_numpy())
    assert table is not None
    assert table.impute == "mean"


@pytest.mark.parametrize(
    ("columns", "found"), [(["age", "age"], "'age' 2 times."), (["age", " age"], "'age' 2 times."), ([], "no column.")]
)
def test_columns_have_different_names(columns: list[str], found: str) -> None:
    frame = pd.DataFrame(np.ones((2, len(columns))), columns=columns)
    with pytest.raises(FusionError, match=like(f"View 'who' should have columns with different names; found {found}")):
        encode_frames({"who": frame}, None, whole=True)


def test_labels_and_roles() -> None:
    labels = frame_labels(patients()[["age", "smokes"]], "the argument label")
    assert (labels.names, labels.values.tolist()) == (["age", "smokes"], [[30, 1], [41, 0], [52, 1], [63, 1]])
    groups: Any = frame_role("group", pd.DataFrame({"patient": ["007", "7", "007"]}), "the argument group")
    assert groups.tolist() == ["007", "7", "007"]
    with pytest.raises(FusionError, match=like("Column 'patient' of the argument group … the first is row 1.")):
        frame_role("group", pd.DataFrame({"patient": ["007", None]}), "the argument group")
    with pytest.raises(FusionError, match=like("Column 'w' of the argument weight … found -1.0 in row 1.")):
        frame_role("weight", pd.DataFrame({"w": [1, -1]}), "the argument weight")
