from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusionkit.errors import FusionError
from fusionkit.experiment.roles import check_role
from tests.messages import like


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["007", "7", "a b"], ["007", "7", "a b"]),
        (np.array(["Größe", "b", "c"], dtype=object).astype("U"), ["Größe", "b", "c"]),
        (np.char.encode(["Größe", "b", "c"], "utf-8"), ["Größe", "b", "c"]),
        ([3, 1, 2**62], [3, 1, 2**62]),
        ([3.0, -1.0, 0.0], [3, -1, 0]),
        ([True, False, True], [True, False, True]),
    ],
    ids=["text", "unicode", "bytes", "integers", "whole floats", "bools"],
)
@pytest.mark.parametrize("role", ["id", "group", "split", "folds"])
def test_names_are_text_or_whole_numbers(role: str, values: Any, wanted: list[Any]) -> None:
    found = check_role(role, np.asarray(values), 3, "it")
    assert found.tolist() == wanted
    assert found.dtype.kind in "Uib"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint64, np.bool_, np.longdouble])
def test_weights_are_float64(dtype: Any) -> None:
    found = check_role("weight", np.array([0, 1, 1], dtype=dtype), 3, "it")
    assert found.dtype == np.float64
    assert found.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("role", "values", "found"),
    [
        ("group", [1.0, np.nan, 2.0], "text or whole numbers; found nan in row 1."),
        ("folds", [1.0, 2.0, 0.5], "text or whole numbers; found 0.5 in row 2."),
        ("folds", [np.inf, 2.0, 0.5], "found inf in row 0."),
        ("id", [1.0, 2.0, 1e17], "found 1e+17 in row 2."),
        ("id", ["a", " ", ""], "found ' ' in row 1."),
        ("split", [b"a", b"b", b"\xff"], "text in UTF-8; found b'\\xff'."),
        ("group", [1j, 2, 3], "text or whole numbers; found dtype complex128."),
        ("weight", [1.0, -2.0, 3.0], "numbers of at least 0, finite in float32; found -2.0 in row 1."),
        ("weight", [1.0, 2.0, np.nan], "numbers of at least 0, finite in float32; found nan in row 2."),
        ("weight", [np.inf, 2.0, 0.0], "found inf in row 0."),
        ("weight", [1.0, 1e300, 0.0], "finite in float32; found 1e+300 in row 1."),
        ("weight", [0, 0, 0], "a weight above zero; found zero in all 3 rows."),
        ("weight", ["1", "2", "3"], "real numbers; found '1' in row 0."),
        ("weight", [1.0, 2.0], "the shape (3,), a value per row; found (2,)."),
    ],
)
def test_what_no_role_may_hold_is_refused(role: str, values: Any, found: str) -> None:
    with pytest.raises(FusionError, match=like(f"The column 'c' of x.csv should … {found}")):
        check_role(role, np.asarray(values), 3, "The column 'c' of x.csv")


def test_a_long_double_that_is_too_large() -> None:
    with pytest.raises(FusionError, match=like("it … found inf in row 0.")):
        check_role("weight", np.array([np.longdouble("1e4000"), 1]), 2, "it")
