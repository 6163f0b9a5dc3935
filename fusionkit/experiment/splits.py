"""Which rows of a data set are its training, its validation and its test part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusionkit._util.text import count_of, listed
from fusionkit.errors import ConfigError, FusionError, nearest
from fusionkit.experiment.draws import draw_groups, draw_rows
from fusionkit.experiment.source import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fusionkit.config.options import DataOptions
    from fusionkit.experiment.data import Dataset

#: What a given split may say of a row, and the part that it means.
WORDS = {"train": 0, "validation": 1, "val": 1, "valid": 1, "dev": 1, "test": 2}
#: A message lists at most this number of values.
_LISTED = 20


@dataclass(frozen=True)
class Parts:
    """The rows of each part; those of validation and test may be none.

    Attributes:
        notes: lines for the user.
    """

    training: Rows
    validation: Rows
    test: Rows
    notes: list[str] = field(default_factory=list)

    def named(self) -> dict[str, Rows]:
        """Return the rows of the three parts by their names."""
        return {"training": self.training, "validation": self.validation, "test": self.test}


def split(data: Dataset, options: DataOptions, seed: int) -> Parts:
    """Divide the rows as the data say (a test file, ``split``, ``folds``), else by ``seed``.

    A validation part that is not given is drawn from the rows that are not test; it does not change which are.

    Raises:
        ConfigError: two options, or an option and the data, exclude each other; or there is no such fold.
        FusionError: the data say something else than parts, or a class or a part has too few rows or groups.
    """
    origin = _origin(data, options)
    validation = np.arange(0)
    notes = []
    if origin is not None:
        rest, validation, test = _given(data, options, origin)
        notes = _cuts(data, origin, (rest, validation, test))
    elif options.test_size:
        rest, test = _draw(data, None, "test", options.test_size, seed, options.fold)
    elif options.fold is not None:
        raise ConfigError("data.test_size should be above 0 where data.fold is given; found 0.")
    else:
        rest, test = np.arange(data.rows), np.arange(0)
    _check_training(data, rest)
    if options.validation_size:
        if len(validation):
            found = f"found {options.validation_size}"
            raise ConfigError(f"data.validation_size should be 0 where validation rows are given by {origin}; {found}.")
        rest, validation = _draw(data, rest, "validation", options.validation_size, seed)
        _check_training(data, rest)
    notes += _lacking(data, "validation", validation) + _lacking(data, "test", test)
    parts = Parts(rest, validation, test, notes)
    for name, rows in parts.named().items():
        notes += _lacking_labels(data, name, rows)
    return parts


def _missing_classes(data: Dataset, rows: Rows) -> list[Any]:
    if data.strata is None:
        return []
    counts = np.bincount(data.strata[rows], minlength=len(data.classes))
    return [data.classes[index] for index in np.flatnonzero(counts == 0).tolist()]


def _check_training(data: Dataset, rows: Rows) -> None:
    if missing := _missing_classes(data, rows):
        should = "have rows in the training part"
        raise FusionError(f"Every class of {data.path} should {should}; found none of class {missing[0]!r}.")
    if "weight" in data.roles and not data.roles["weight"][rows].any():
        raise FusionError(f"Some rows of the training part of {data.path} should have a weight above 0; found none.")


def _lacking(data: Dataset, name: str, rows: Rows) -> list[str]:
    """Return a line that says which classes a part of evaluation lacks, if it lacks any; it may be empty."""
    missing = _missing_classes(data, rows) if len(rows) else []
    if not missing:
        return []
    found = "class" if len(missing) == 1 else f"{len(missing)} classes, such as"
    return [f"The {name} part has no row of {found} {missing[0]!r}."]


def _lacking_labels(data: Dataset, name: str, rows: Rows) -> list[str]:
    """Return a line that says which labels of a multilabel task no row of a part has; it may be empty."""
    if data.task.name != "multilabel" or not len(rows):
        return []
    counts = data.target[rows].sum(0).tolist()
    lacking = [repr(label) for label, count in zip(data.classes, counts, strict=True) if not count]
    undefined = "average_precision and roc_auc are undefined there"
    return [f"The {name} part has no row with {listed(lacking)}: {undefined}."] if lacking else []


# -- parts that are given ----------------------------------------------------------------------------------------------


def _origin(data: Dataset, options: DataOptions) -> str | None:
    """Return which file, array or column names the test rows, in words; None: they are drawn."""
    found = [] if data.test_rows is None else ["data.test_path"]
    found += [_named(data, options, role) for role in ("split", "folds") if role in data.roles]
    drawn = ["data.fold"] if options.fold is not None and "folds" not in data.roles else []
    if len(found + drawn) > 1:
        should = "be given by one of data.test_path, split, folds with data.fold, or data.fold alone"
        raise ConfigError(f"The test part should {should}; found {' and '.join(found + drawn)}.")
    return found[0] if found else None


def _named(data: Dataset, options: DataOptions, role: str) -> str:
    column = getattr(options, role, None)
    return f"the array {role!r} of {data.path}" if column is None else f"the column {column!r} (data.{role})"


def _given(data: Dataset, options: DataOptions, origin: str) -> tuple[Rows, Rows, Rows]:
    """Return the rows of the three parts that ``origin`` names; before a validation part is drawn."""
    if "split" in data.roles:
        part = _read_words(data.roles["split"], origin)
    elif "folds" in data.roles:
        part = np.where(_in_fold(data.roles["folds"], options.fold, origin), 2, 0)
    else:
        part = np.zeros(data.rows, dtype=np.int64)
        part[data.test_rows] = 2
    training, validation, test = (np.flatnonzero(part == one) for one in range(3))
    for name, rows in (("train", training), ("test", test)):
        if not len(rows):
            raise FusionError(f"Some rows should be {name} by {origin}; found none among {count_of(data.rows, 'row')}.")
    return training, validation, test


def _read_words(words: npt.NDArray[Any], origin: str) -> Rows:
    """Return 0, 1 or 2 for each row: training, validation, test."""
    values, index = np.unique(words, return_inverse=True)
    texts = [str(value).strip() for value in values.tolist()]
    unknown = [i for i, text in enumerate(texts) if text.casefold() not in WORDS]
    if unknown:
        row = int(np.isin(index, unknown).argmax())
        text = texts[index[row]]
        hint = nearest(text.casefold(), WORDS)
        raise FusionError(
            f"The words in {origin} should be train, validation (val, valid, dev) or test; "
            f"found {text!r} in row {row}.{hint}"
        )
    return np.array([WORDS[text.casefold()] for text in texts], dtype=np.int64)[index]


def _in_fold(folds: npt.NDArray[Any], fold: int | str | None, origin: str) -> npt.NDArray[np.bool_]:
    """Return which rows have the value ``fold``, also where it is written 2.0 or as text."""
    values, index = np.unique(folds, return_inverse=True)
    known, fold = [_number(value) for value in values.tolist()], None if fold is None else _number(fold)
    if fold not in known:
        different = sorted(set(known), key=lambda value: (isinstance(value, str), value))
        values_there = listed(map(str, different), _LISTED)
        found = "null" if fold is None else fold
        raise ConfigError(f"data.fold should be a value of {origin}, for the test part: {values_there}; found {found}.")
    return np.array([value == fold for value in known])[index]


def _number(value: Any) -> Any:
    """Return a whole number as an int, also of text; anything else as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else value


def _cuts(data: Dataset, origin: str, parts: Sequence[Rows]) -> list[str]:
    """Return a line that counts the groups that a given split cuts, if there are any."""
    if "group" not in data.roles:
        return []
    names, groups = np.unique(data.roles["group"], return_inverse=True)
    sides = sum(np.bincount(groups[rows], minlength=len(names)) > 0 for rows in parts)
    cut = int((np.asarray(sides) > 1).sum())
    line = f"{cut} of {count_of(len(names), 'group')} have rows in more than one part, by {origin}: used as it is."
    return [line] if cut else []


# -- parts that are drawn ----------------------------------------------------------------------------------------------


def _draw(data: Dataset, among: Rows | None, part: str, size: float, seed: int, fold: Any = None) -> tuple[Rows, Rows]:
    """Return the rows of ``among`` that stay, and those of the part: fold ``fold`` of ``round(1 / size)``, or drawn.

    None stands for all rows.
    """
    folds = None if fold is None else _folds(size, fold)
    rows = data.rows if among is None else len(among)
    strata, groups = data.strata, data.roles.get("group")
    if among is not None:
        strata, groups = (None if one is None else one[among] for one in (strata, groups))
    if groups is not None:
        _, groups = np.unique(groups, return_inverse=True)
    where = str(data.path) if rows == data.rows else f"{data.path} outside the test part"
    _check_counts(data, where, strata, groups, rows, folds or 2)
    held = int(np.ceil(size * rows))
    if groups is None:
        least = "1 row" if strata is None else f"{len(data.classes)} rows, one per class"
        for name, count in ((part, held), ("training", rows - held)):
            if count < (1 if strata is None else len(data.classes)):
                found = f"{count} of {rows} rows at {part}_size {size}"
                raise FusionError(f"The {name} part of {data.path} should have at least {least}; found {found}.")
    if fold is not None and folds is not None:
        from fusionkit.experiment.folds import fold_of

        stays, drawn = fold_of(strata, groups, rows=rows, folds=folds, fold=fold, seed=seed)
    elif groups is not None:
        stays, drawn = draw_groups(strata, groups, size, seed)
    else:
        stays, drawn = draw_rows(strata, rows, held, seed)
    return (stays, drawn) if among is None else (among[stays], among[drawn])


def _folds(size: float, fold: Any) -> int:
    """Return the number of folds, of which ``fold`` is one."""
    folds = round(1 / size)
    if folds < 2:
        raise ConfigError("data.test_size should be at most 2/3 where data.fold is given, for two folds or more.")
    if not isinstance(fold, int) or not 0 <= fold < folds:
        raise ConfigError(f"data.fold should be null or an integer from 0 to {folds - 1}; found {fold!r}.")
    return folds


def _check_counts(data: Dataset, where: str, strata: Rows | None, groups: Rows | None, rows: int, parts: int) -> None:
    """Refuse data, or a class, with fewer rows than parts of the split; data with fewer groups, a class with one group:
    some folds may lack it.
    """
    unit, number = ("rows", rows) if groups is None else ("groups", int(groups.max()) + 1)
    least = "at least {} {}, one in each part of the split"
    if number < parts and (strata is None or groups is not None):
        raise FusionError(f"{where} should have {least.format(parts, unit)}; found {number}.")
    if strata is None:
        return
    if groups is not None and (largest := int(np.bincount(strata).max())) < parts:
        raise FusionError(f"Some class of {where} should have {least.format(parts, 'rows')}; found at most {largest}.")
    if groups is not None:  # Each pair of a class and a group once.
        strata, parts = np.unique(strata * number + groups) // number, 2
    counts = np.bincount(strata, minlength=len(data.classes))
    smallest = int(counts.argmin())
    if counts[smallest] < parts:
        name = f"{counts[smallest]} of class {data.classes[smallest]!r}"
        raise FusionError(f"Every class of {where} should have {least.format(parts, unit)}; found {name}.")
