from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.source import Labels
from fusionkit.experiment.tasks.choice import Target, choose
from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.tasks.multilabel import Multilabel
from fusionkit.experiment.tasks.regression import Regression
from tests.messages import like


def labels(values: Any) -> Labels:
    values = np.asarray(values)
    names = ["y"] if values.ndim == 1 else [f"y{i}" for i in range(values.shape[1])]
    return Labels(values, names, "The column 'y' of data.csv")


def chosen(values: Any, task: str = "auto", separator: str | None = None) -> Target:
    return choose(labels(values), task, separator)


def whole(different: int, each: int) -> list[int]:
    """Return so many different whole numbers, each so often."""
    return [value for value in range(different) for _ in range(each)]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["yes", "no", "no"], "classification"),
        ([True, False, True], "classification"),
        ([0.5, 1.0, 2.0], "regression"),
        ([1.0, 2.0, 3.0] * 5 + [3.5], "regression"),
        (whole(20, 1), "classification"),
        (whole(21, 1), "regression"),
        (whole(21, 10), "classification"),
        (whole(21, 10)[1:], "regression"),  # One of them occurs nine times.
        ([3.0, 4.0, 3.0], "classification"),
        (np.asarray(whole(21, 1), dtype=float), "regression"),
        (np.asarray(whole(21, 1), dtype=np.uint8), "regression"),
        ([[0, 1], [1, 1]], "multilabel"),
        ([[0.0, 1.0], [1.0, 1.0]], "multilabel"),
        ([[True, False], [True, True]], "multilabel"),
        ([[0, 1], [1, 2]], "regression"),
        ([[0.5, 1], [1, 1]], "regression"),
    ],
)
def test_what_auto_takes(values: Any, task: str) -> None:
    found = chosen(values)
    assert found.task.name == task
    assert (
        found.values.shape
        == {
            "classification": (len(values),),
            "multilabel": np.shape(values),
            "regression": np.shape(values) if np.ndim(values) == 2 else (len(values), 1),
        }[task]
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["b", "a", "b"], "text, 2 different ones: classes"),
        ([True, False], "true and false: classes; amounts? task=regression"),
        ([0.5, 1.0], "numbers with fractions: amounts; classes? task=classification"),
        (whole(7, 2), "whole numbers, 7 different ones: classes; amounts? task=regression"),
        (whole(25, 2), "whole numbers, 25 different ones: amounts; classes? task=classification"),
        ([[0, 1], [1, 1]], "only 0 and 1: labels; amounts? task=regression"),
        ([[0, 1, 5], [1, 1, 5]], "numbers: targets"),
    ],
)
def test_the_reason_says_what_was_taken_and_the_key_that_changes_it(values: Any, reason: str) -> None:
    assert chosen(values).reason == reason
    if "task=" in reason:
        other = reason.rpartition("task=")[2]
        assert chosen(values, other).reason == f"{reason.partition(':')[0]}, for task={other}"


def test_a_target_of_each_task() -> None:
    found = chosen(["b", "a", "c", "b"])
    assert (found.task, found.values.tolist()) == (Classification(["a", "b", "c"]), [1, 0, 2, 1])
    assert chosen([True, False]).task.classes == [False, True]
    found = chosen([2.0, -1.0, 2.0])
    assert (found.task, found.values.tolist()) == (Classification([-1.0, 2.0]), [1, 0, 1])
    found = chosen([[0, 1], [1, 1]])
    assert (found.task, found.values.dtype) == (Multilabel(["y0", "y1"]), np.dtype(bool))
    found = chosen([[0, 1], [1, 7]])
    assert found.task == Regression(["y0", "y1"])
    assert (str(found.values.dtype), found.values.tolist()) == ("float64", [[0, 1], [1, 7]])


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        ([0.5, 1.0, 0.5], "classification", [0, 1, 0]),
        (whole(3, 2), "regression", [[0.0], [0.0], [1.0], [1.0], [2.0], [2.0]]),
        ([True, False], "regression", [[1.0], [0.0]]),
        ([[0, 1], [1, 1]], "regression", [[0.0, 1.0], [1.0, 1.0]]),
        ([0, 1, 1], "multilabel", [[False], [True], [True]]),
        ([[1.0], [0.0]], "multilabel", [[True], [False]]),
    ],
)
def test_a_task_that_is_asked_for(values: Any, task: str, expected: Any) -> None:
    found = chosen(values, task)
    assert (found.task.name, found.values.tolist()) == (task, expected)


@pytest.mark.parametrize(
    ("values", "task", "kind", "sentence"),
    [
        (["high", "low"], "regression", ConfigError, "The column 'y' … task=regression; found 'high' in row 0."),
        ([0, 2, 1], "multilabel", ConfigError, "The column 'y' … task=multilabel; found 2 in row 1."),
        ([[0, 1], [1, 0.5]], "multilabel", ConfigError, "The column 'y' … task=multilabel; found 0.5 in row 1."),
        (["a", "b"], "multilabel", ConfigError, "The column 'y' … found text.  In a table data.label_separator=';'"),
        ([[0, 1], [1, 1]], "classification", ConfigError, "The column 'y' … task=classification; found 2 columns."),
        ([["a", "1"], ["b", "2"]], "auto", FusionError, "The column 'y' … found text in one of 2 columns."),
        ([["a", "1"], ["b", "2"]], "multilabel", FusionError, "The column 'y' … found text in one of 2 columns."),
        ([["a", "1"], ["b", "2"]], "regression", ConfigError, "The column 'y' … task=regression; found 'a' in row 0."),
        (["a", "a"], "auto", FusionError, "The column 'y' … at least two classes; found only 'a'."),
        ([7, 7, 7], "auto", FusionError, "The column 'y' … at least two classes; found only 7."),
        ([True, True], "classification", FusionError, "The column 'y' … found only True."),
    ],
)
def test_what_a_label_cannot_be(values: Any, task: str, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=like(sentence)):
        chosen(values, task)


def test_tags_in_one_column_of_text() -> None:
    found = chosen(["red; round", "round", " red ;; big", ";"], "multilabel", ";")
    assert found.task == Multilabel(["big", "red", "round"])
    assert found.values.tolist() == [[0, 1, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert found.reason == "text with tags between ';', 3 different ones"
    assert chosen(["a|b"], "auto", "|").task == Multilabel(["a", "b"])


@pytest.mark.parametrize(
    ("values", "task", "sentence"),
    [
        (["a;b"], "classification", "data.label_separator … task=multilabel; found task=classification."),
        ([1, 2], "auto", "The column 'y' … data.label_separator; found numbers."),
        ([["a", "b"]], "auto", "The column 'y' … data.label_separator; found 2 columns."),
        ([";", " ; "], "auto", "The column 'y' … tags; found none."),
    ],
)
def test_a_separator_that_does_not_fit(values: Any, task: str, sentence: str) -> None:
    with pytest.raises((ConfigError, FusionError), match=like(sentence)):
        chosen(values, task, ";")


def test_one_hot_classes_are_recognized() -> None:
    hint = "one 1 in every row: classes? one column with their names"
    for values, told in ((np.eye(3)[[0, 1, 2, 0]], True), (np.array([[1, 1], [0, 1]]), False)):
        assert (hint in choose(Labels(values, ["a", "b", "c"][: values.shape[1]], "x")).reason) == told
