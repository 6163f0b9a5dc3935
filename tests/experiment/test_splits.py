from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold, train_test_split

from fusionkit.config.options import DataOptions, NpzOptions, TableOptions, validate_group
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.data import Dataset
from fusionkit.experiment.source import Labels, Source
from fusionkit.experiment.splits import Parts, split
from fusionkit.experiment.tasks.choice import choose
from tests.messages import like

Rows = np.ndarray[Any, Any]


def table(
    strata: Rows | None,
    roles: dict[str, Any] | None = None,
    test_rows: Any = None,
    *,
    rows: int = 0,
    path: str = "x.npz",
) -> Dataset:
    """Return data of these classes c0, c1, ...; None: a regression of ``rows`` rows."""
    values = np.arange(rows) / 2 if strata is None else np.array([f"c{index}" for index in strata])
    chosen = choose(Labels(values, ["label"], "label"), "regression" if strata is None else "classification")
    arrays = {name: np.asarray(given) for name, given in (roles or {}).items()}
    source = Source(Path(path), "", {"a": np.zeros((len(values), 1))}, Labels(values, ["label"], "label"), arrays)
    return Dataset(**vars(source), name="npz", task=chosen.task, target=chosen.values, test_rows=test_rows)


def classes(rows: int = 60, count: int = 3) -> Rows:
    """Return the classes of rows, evenly, in a random order."""
    return np.random.default_rng(0).permutation(np.arange(rows) % count)


def options(**given: Any) -> DataOptions:
    return validate_group(NpzOptions, {"name": "npz", "path": "x.npz", **given}, "data")


def divide(data: Dataset, seed: int = 0, **given: Any) -> Parts:
    """Divide the rows, and assert that each is in one part."""
    parts = split(data, options(**given), seed)
    every = np.concatenate([parts.training, parts.validation, parts.test])
    np.testing.assert_array_equal(np.sort(every), np.arange(data.rows))
    assert every.dtype == np.int64
    return parts


def refused(data: Dataset, error: type[Exception], sentence: str, **given: Any) -> None:
    with pytest.raises(error, match=like(sentence)):
        split(data, options(**given), 0)


# -- a row of the table each -------------------------------------------------------------------------------------------


def test_a_test_file_is_the_test_part() -> None:
    data = table(classes(), test_rows=np.arange(50, 60))
    parts = divide(data, test_path="new.npz")
    assert parts.training.tolist() == list(range(50))
    assert (parts.validation.tolist(), parts.test.tolist(), parts.notes) == ([], list(range(50, 60)), [])


def test_a_split_names_the_parts_of_its_rows() -> None:
    words = ["train", " Train", "TEST ", "validation", "val", "Valid", "dev", "train", "test"]
    parts = divide(table(np.array([0, 1, 0, 0, 0, 0, 1, 1, 1]), {"split": words}))
    assert parts.training.tolist() == [0, 1, 7]
    assert parts.validation.tolist() == [3, 4, 5, 6]
    assert parts.test.tolist() == [2, 8]


def test_validation_rows_are_drawn_from_train_where_a_split_names_none() -> None:
    target = classes()
    words = np.where(np.arange(60) < 45, "train", "test")
    parts = divide(table(target, {"split": words}), seed=3, validation_size=0.2)
    wanted = train_test_split(np.arange(45), test_size=0.2, stratify=target[:45], random_state=3)
    np.testing.assert_array_equal(parts.training, wanted[0])
    np.testing.assert_array_equal(parts.validation, wanted[1])
    assert parts.test.tolist() == list(range(45, 60))


@pytest.mark.parametrize(
    "folds",
    [np.arange(60) // 15, (np.arange(60) // 15).astype(str), np.arange(60) / 15 // 1],
    ids=["integers", "text", "floats"],
)
def test_the_test_part_is_the_fold_with_the_value(folds: Rows) -> None:
    parts = divide(table(classes(), {"folds": folds}), fold=2)
    assert parts.test.tolist() == list(range(30, 45))
    assert parts.training.tolist() == [*range(30), *range(45, 60)]


def test_folds_of_text_that_are_no_numbers_do_no_harm() -> None:
    folds = np.array(["1", "1.0", " 1", "2", "rest", "rest"])
    data = table(np.arange(6) % 2, {"folds": folds})
    assert divide(data, fold=1).test.tolist() == divide(data, fold="1").test.tolist() == [0, 1, 2]
    assert divide(data, fold="rest").test.tolist() == [4, 5]
    with pytest.raises(ConfigError, match="found rets"):
        divide(data, fold="rets")
    with pytest.raises(ConfigError, match="an integer from 0 to 4; found 'rest'"):
        divide(table(classes()), fold="rest")


@pytest.mark.parametrize("size", [0.2, 0.25, 0.3, 0.5])
@pytest.mark.parametrize("fold", [0, 1])
def test_a_fold_alone_is_that_of_scikit_learn(size: float, fold: int) -> None:
    target, folds = classes(), round(1 / size)
    kinds = {StratifiedKFold: table(target), KFold: table(None, rows=60)}
    for kind, data in kinds.items():
        parts = divide(data, seed=5, test_size=size, fold=fold)
        wanted = list(kind(folds, shuffle=True, random_state=5).split(target, target))[fold]
        np.testing.assert_array_equal(parts.training, wanted[0])
        np.testing.assert_array_equal(parts.test, wanted[1])


@pytest.mark.parametrize("size", [0.2, 0.3, 0.45, 0.9])
@pytest.mark.parametrize("rows", [31, 60, 97])
def test_without_anything_rows_are_drawn_by_the_seed(size: float, rows: int) -> None:
    target = classes(rows)
    for strata in (target, None):
        parts = divide(table(strata, rows=rows), seed=4, test_size=size)
        wanted = train_test_split(np.arange(rows), test_size=size, stratify=strata, random_state=4)
        np.testing.assert_array_equal(parts.training, wanted[0])
        np.testing.assert_array_equal(parts.test, wanted[1])


@pytest.mark.parametrize("size", [0.1, 0.25, 0.5])
def test_a_validation_part_is_a_share_of_the_others_and_leaves_the_test_part(size: float) -> None:
    given: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({}, {"fold": 1}),
        ({"folds": np.arange(120) % 4}, {"fold": 1}),
    ]
    group = np.arange(120) // 2
    for strata in (group % 3, None):
        for roles, keys in [*given, ({"group": group}, {}), ({"group": group}, {"fold": 1})]:
            data = table(strata, roles, rows=120)
            without, parts = divide(data, **keys), divide(data, validation_size=size, **keys)
            np.testing.assert_array_equal(parts.test, without.test)
            assert abs(len(parts.validation) - size * len(without.training)) <= 3


def test_all_rows_train() -> None:
    data = table(np.array([0, 0, 1]))
    parts = divide(data, test_size=0)
    assert (parts.training.tolist(), len(parts.validation), len(parts.test)) == ([0, 1, 2], 0, 0)
    parts = divide(table(classes()), test_size=0, validation_size=0.25)
    assert (len(parts.training), len(parts.validation), len(parts.test)) == (45, 15, 0)


def test_a_given_part_does_not_ask_for_a_test_size() -> None:
    data = table(np.arange(6) % 2, {"folds": [0, 0, 1, 1, 2, 2]})
    assert divide(data, fold=1, test_size=0).test.tolist() == [2, 3]


def test_two_rows_are_enough_without_classes() -> None:
    parts = divide(table(None, rows=2))
    assert (len(parts.training), len(parts.test)) == (1, 1)
    parts = divide(table(None, {"group": ["a", "b"]}, rows=2))
    assert (len(parts.training), len(parts.test)) == (1, 1)


# -- what excludes each other ------------------------------------------------------------------------------------------

WORDS = ["train", "test"] * 30


@pytest.mark.parametrize(
    ("roles", "test_rows", "given", "found"),
    [
        ({"split": WORDS}, [1], {}, "data.test_path and the array 'split' of x.npz."),
        ({"folds": WORDS}, [1], {"fold": 1}, "data.test_path and the array 'folds' of x.npz."),
        ({}, [1], {"fold": 1}, "data.test_path and data.fold."),
        ({"split": WORDS, "folds": WORDS}, None, {}, "the array 'split' of x.npz and the array 'folds' of x.npz."),
        ({"split": WORDS}, None, {"fold": 0}, "the array 'split' of x.npz and data.fold."),
    ],
)
def test_two_that_name_the_test_part_are_refused(roles: Any, test_rows: Any, given: Any, found: str) -> None:
    rows = None if test_rows is None else np.array(test_rows)
    refused(
        table(classes(), roles, rows), ConfigError, f"The test part should be given by one of … found {found}", **given
    )


def test_columns_are_named_with_their_keys() -> None:
    keys = {"name": "table", "path": "x.csv", "label": "y", "split": "part", "folds": "k"}
    data = table(classes(), {"split": WORDS, "folds": WORDS}, path="x.csv")
    found = "found the column 'part' (data.split) and the column 'k' (data.folds)."
    with pytest.raises(ConfigError, match=like(f"The test part … {found}")):
        split(data, validate_group(TableOptions, keys, "data"), 0)


def test_folds_without_a_fold_ask_for_it() -> None:
    data = table(classes(), {"folds": np.arange(60) % 12})
    listed = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    sentence = f"data.fold should be a value of the array 'folds' of x.npz, for the test part: {listed}; found "
    refused(data, ConfigError, sentence + "null.")
    refused(data, ConfigError, sentence + "12.", fold=12)
    many = table(classes(), {"folds": (np.arange(60) % 30).astype(str)})
    refused(many, ConfigError, "data.fold …: 0, 1, 2, … 18, 19, ...; found 30.", fold=30)


def test_folds_of_one_value_leave_no_training_part() -> None:
    data = table(classes(), {"folds": np.zeros(60, dtype=int)})
    refused(data, FusionError, "Some rows should be train by the array 'folds' … found none among 60 rows.", fold=0)


def test_validation_rows_exclude_a_validation_size() -> None:
    data = table(np.arange(6) % 2, {"split": ["train", "train", "val", "val", "test", "test"]})
    sentence = "data.validation_size should be 0 … the array 'split' of x.npz; found 0.1."
    refused(data, ConfigError, sentence, validation_size=0.1)


@pytest.mark.parametrize(("part", "words"), [("train", ["val", "test"]), ("test", ["val", "train"])])
def test_a_split_without_train_or_test(part: str, words: list[str]) -> None:
    data = table(np.arange(6) % 2, {"split": words * 3})
    refused(data, FusionError, f"Some rows should be {part} by the array 'split' of x.npz; found none among 6 rows.")


@pytest.mark.parametrize(
    ("word", "found"),
    [("Tset ", "found 'Tset' in row 2. Did you mean 'test'?"), ("", "found '' in row 2."), (3, "found '3' in row 2.")],
)
def test_another_word_in_a_split(word: Any, found: str) -> None:
    data = table(np.arange(6) % 2, {"split": ["test", "train", word, word, "train", "zzz"]})
    refused(data, FusionError, f"The words in the array 'split' of x.npz should be train, … or test; {found}")


def test_a_fold_needs_a_test_size() -> None:
    refused(table(classes()), ConfigError, "data.test_size should be above 0 … found 0.", test_size=0, fold=0)
    refused(table(classes()), ConfigError, "data.test_size should be at most 2/3 …", test_size=0.9, fold=0)
    refused(table(classes()), ConfigError, "data.fold should … from 0 to 4; found 5.", fold=5)


# -- too few rows ------------------------------------------------------------------------------------------------------


def test_a_class_needs_a_row_in_each_part() -> None:
    data = table(np.array([0] * 30 + [1] * 30 + [2] * 4 + [3]))
    refused(data, FusionError, "Every class of x.npz should have at least 2 rows, … found 1 of class 'c3'.")
    refused(data, FusionError, "Every class of x.npz should have at least 5 rows, … found 1 of class 'c3'.", fold=1)


def test_a_class_needs_rows_for_a_validation_part() -> None:
    data = table(
        np.array([0] * 30 + [1] * 30 + [2] * 2), {"split": ["train"] * 29 + ["test"] + ["train"] * 31 + ["test"]}
    )
    sentence = "Every class of x.npz outside the test part should have at least 2 rows, … found 1 of class 'c2'."
    refused(data, FusionError, sentence, validation_size=0.2)


def test_every_class_is_in_the_training_part() -> None:
    data = table(np.arange(9) % 3, {"split": ["train", "train", "test"] * 3})
    refused(data, FusionError, "Every class of x.npz should have rows in the training part; found none of class 'c2'.")


def test_a_training_part_needs_a_weight() -> None:
    roles = {"split": ["train", "train", "test", "val"], "weight": np.array([0.0, 0, 1, 1])}
    data = table(None, roles, rows=4)
    refused(data, FusionError, "Some rows of the training part of x.npz … a weight above 0; found none.")


def test_classes_that_a_part_lacks_are_noted() -> None:
    words = np.array(["train"] * 6 + ["val", "val", "test", "test"])
    parts = divide(table(np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 2]), {"split": words}))
    assert parts.notes == [
        "The validation part has no row of class 'c2'.",
        "The test part has no row of 2 classes, such as 'c0'.",
    ]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"test_size": 0.01}, "The test part … at least 3 rows, one per class; found 1 of 60 rows at test_size 0.01."),
        (
            {"test_size": 0.99},
            "The training part … at least 3 rows, one per class; found 0 of 60 rows at test_size 0.99.",
        ),
        (
            {"validation_size": 0.02},
            "The validation part … at least 3 rows, one per class; found 1 of 48 rows at validation_size 0.02.",
        ),
    ],
)
def test_a_part_needs_a_row_per_class(given: dict[str, float], sentence: str) -> None:
    refused(table(classes()), FusionError, sentence, **given)


def test_too_few_rows_without_classes() -> None:
    refused(table(None, rows=1), FusionError, "x.npz should have at least 2 rows, … found 1.")
    refused(table(None, rows=4), FusionError, "x.npz should have at least 5 rows, … found 4.", fold=1)
    refused(
        table(None, rows=9),
        FusionError,
        "The training part of x.npz should have at least 1 row; found 0 of 9 rows at test_size 0.95.",
        test_size=0.95,
    )
    sentence = "x.npz outside the test part should have at least 2 rows, … found 1."
    refused(table(None, rows=2), FusionError, sentence, validation_size=0.5)


# -- groups ------------------------------------------------------------------------------------------------------------


def patients(seed: int, count: int = 60, most: int = 9, kinds: int = 3) -> tuple[Rows, Rows]:
    """Return the class and the patient of each row; all rows of a patient are of one class."""
    random = np.random.default_rng(seed)
    group = random.permutation(np.repeat(np.arange(count), random.integers(1, most, count)))
    return group % kinds, group


def sides(group: Rows, parts: Parts) -> Rows:
    """Return the number of parts that each group is in."""
    present = [np.isin(np.unique(group), group[rows]) for rows in (parts.training, parts.validation, parts.test)]
    number: Rows = np.sum(present, axis=0)
    return number


@pytest.mark.parametrize("size", [0.1, 0.2, 0.3, 0.45])
def test_groups_stay_together_with_every_class_on_each_side(size: float) -> None:
    for seed in range(15):
        strata, group = patients(seed)
        for keys in ({}, {"fold": 0}):
            parts = divide(table(strata, {"group": group}), seed, test_size=size, validation_size=size, **keys)
            assert set(sides(group, parts)) == {1}
            assert [len(set(strata[rows])) for rows in (parts.training, parts.validation, parts.test)] == [3, 3, 3]
            assert abs(len(parts.test) / len(group) - (1 / round(1 / size) if keys else size)) < 0.05
            assert abs(len(parts.validation) / (len(group) - len(parts.test)) - size) < 0.06
            assert parts.notes == []


@pytest.mark.parametrize("name", ["strata", None])
def test_folds_of_groups_are_those_of_scikit_learn(name: str | None) -> None:
    strata, group = patients(1)
    given = strata if name else np.zeros_like(strata)
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=2).split(given, given, group)
    for fold, (training, test) in enumerate(folds):
        data = table(strata if name else None, {"group": group.astype(str)}, rows=len(group))
        parts = divide(data, seed=2, test_size=0.25, fold=fold)
        # As text the groups are in another order, hence in other folds: compare those of equal order.
        if name is None:
            assert abs(len(parts.test) - len(group) / 4) < 9
        again = divide(
            table(strata if name else None, {"group": group}, rows=len(group)), seed=2, test_size=0.25, fold=fold
        )
        np.testing.assert_array_equal(again.training, training)
        np.testing.assert_array_equal(again.test, test)


@pytest.mark.parametrize("patient", [[f"p{i // 3:03}" for i in range(60)], np.arange(60) // 3, np.arange(60) // 3 == 0])
def test_groups_may_be_text_numbers_or_bools(patient: Any) -> None:
    parts = divide(table(None, {"group": patient}, rows=60))
    assert set(sides(np.asarray(patient), parts)) == {1}
    assert len(parts.test) in (12, 3, 57)


def test_a_class_in_one_group_is_refused_by_name() -> None:
    strata, group = np.array([0] * 8 + [1] * 8 + [2] * 8), np.arange(24) // 2
    group[16:] = 99
    data = table(strata, {"group": group})
    for keys in ({}, {"fold": 0, "test_size": 0.5}):
        sentence = "Every class of x.npz should have at least 2 groups, … found 1 of class 'c2'."
        refused(data, FusionError, sentence, **keys)
    refused(data, FusionError, sentence, test_size=0, validation_size=0.2)
    # All rows train: nothing is drawn.
    assert len(divide(data, test_size=0).training) == 24


def test_too_few_groups_are_refused_with_the_numbers() -> None:
    data = table(np.arange(60) % 2, {"group": np.arange(60) // 20})
    refused(data, FusionError, "x.npz should have at least 5 groups, … found 3.", fold=0)
    refused(table(None, {"group": ["a"] * 9}, rows=9), FusionError, "x.npz should have at least 2 groups, … found 1.")
    refused(
        table(np.arange(9) % 2, {"group": ["a"] * 9}), FusionError, "x.npz should have at least 2 groups, … found 1."
    )
    tiny = table(np.arange(12) // 4, {"group": np.arange(12) // 2})
    refused(tiny, FusionError, "Some class of x.npz should have at least 5 rows, … found at most 4.", fold=0)


def test_a_class_in_fewer_groups_than_folds_is_where_its_groups_are() -> None:
    group = np.arange(60) // 3
    strata = np.where(group < 3, 2, group % 2)
    strata[[0, 3, 6]] = 0  # Two rows of the class in each of three groups: sklearn warns below five rows of a class.
    strata[[1, 4]] = 1
    parts = [divide(table(strata, {"group": group}), fold=fold) for fold in range(5)]
    assert sorted(np.concatenate([one.test for one in parts]).tolist()) == list(range(60))
    assert all(2 in strata[one.training] for one in parts)
    lines = [one.notes for one in parts]
    assert sorted(map(len, lines)) == [0, 0, 0, 1, 1]
    assert {line for notes in lines for line in notes} == {"The test part has no row of class 'c2'."}


def test_a_class_needs_groups_for_a_validation_part() -> None:
    group = np.arange(60) // 6
    data = table((group >= 8).astype(int), {"group": group})
    sentence = "Every class of x.npz outside the test part should have at least 2 groups, … found 1 of class 'c1'."
    refused(data, FusionError, sentence, validation_size=0.2)
    for seed in range(20):
        three = table((group >= 7).astype(int), {"group": group})
        parts = divide(three, seed, validation_size=0.2)
        assert [set(three.target[rows]) for rows in (parts.training, parts.validation, parts.test)] == [{0, 1}] * 3


def test_classes_whose_groups_cannot_be_on_both_sides_are_noted() -> None:
    # Any two of the three groups share a class, so that one side lacks the class of the two on the other.
    data = table(np.array([0, 0, 1, 1, 2, 2]), {"group": [0, 1, 1, 2, 2, 0]})
    lines = [divide(data, seed, test_size=0.3).notes for seed in range(10)]
    assert all(len(notes) == 1 and notes[0].startswith("The test part has no row of class 'c") for notes in lines)


def test_a_given_split_that_cuts_groups_is_used_and_counted() -> None:
    words = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    group = ["a", "a", "b", "b", "b", "c", "c", "d"]
    line = "2 of 4 groups have rows in more than one part, by the array 'split' of x.npz: used as it is."
    assert divide(table(None, {"split": words, "group": group}, rows=8)).notes == [line]
    whole = ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert divide(table(None, {"split": words, "group": whole}, rows=8)).notes == []


def test_a_given_fold_or_file_that_cuts_groups_is_used_and_counted() -> None:
    group = np.arange(60) // 4
    parts = divide(table(None, {"folds": np.arange(60) // 6, "group": group}, rows=60), fold=0, validation_size=0.3)
    line = "1 of 15 groups have rows in more than one part, by the array 'folds' of x.npz: used as it is."
    assert parts.notes == [line]
    # The validation part is drawn: it cuts none.
    assert not set(group[parts.training]) & set(group[parts.validation])
    file = divide(table(None, {"group": group}, np.arange(6), rows=60))
    assert file.notes == ["1 of 15 groups have rows in more than one part, by data.test_path: used as it is."]


def test_a_draw_is_repeated_by_its_seed() -> None:
    strata, group = patients(0)
    for roles in ({}, {"group": group}):
        data = table(strata, roles)
        first, again, other = (divide(data, seed, validation_size=0.2) for seed in (1, 1, 2))
        for name in ("training", "validation", "test"):
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert set(first.test) != set(other.test)
