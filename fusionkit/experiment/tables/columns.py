"""The cells of one column: numbers, booleans and text, whether from a file or from a DataFrame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from fusionkit._util.text import count_of, short_repr, value_text
from fusionkit.errors import FusionError

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

#: Cells that stand for no value; blanks around them do not count.
MISSING = ("", "NA", "NaN", "nan", "null", "None")
_MISSING = frozenset(MISSING)
_BOOLEANS = {"true": 1.0, "false": 0.0}
#: A number, with its decimal point or comma in place of the @.
_NUMBER = r"[+-]?(\d+@?\d*|@\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?"
_NUMBERS = {mark: re.compile(_NUMBER.replace("@", re.escape(mark)), re.ASCII | re.IGNORECASE) for mark in ".,"}


@dataclass(frozen=True)
class Place:
    """Where a column is, for messages.

    Attributes:
        column: its name.
        what: the file, or the DataFrame.
        rows: (m,) the numbers of the rows in the file; None: they count from 0.
    """

    column: str
    what: str
    rows: npt.NDArray[np.int64] | None = None

    def __str__(self) -> str:
        return f"Column {self.column!r} of {self.what}"

    def first(self, where: npt.NDArray[np.bool_]) -> int:
        """Return the number of the first row in which ``where`` is True."""
        return self.row(int(self.positions(where)[0]))

    def positions(self, where: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return where ``where`` is True, in the order of the file."""
        found = np.flatnonzero(where)
        return found if self.rows is None else found[np.argsort(self.rows[found], kind="stable")]

    def row(self, position: int) -> int:
        """Return the number of a row in the file."""
        return position if self.rows is None else int(self.rows[position])


def number(text: str, decimal: str) -> float | None:
    """Return the number that a cell stands for, None if it is no number."""
    pattern = _NUMBERS.get(decimal) or re.compile(_NUMBER.replace("@", re.escape(decimal)), re.ASCII | re.IGNORECASE)
    return float(text.replace(decimal, ".")) if pattern.fullmatch(text) else None


def quoted(column: str) -> str:
    """Return a name as it has to stand behind ``data.drop=`` on a command line."""
    return column if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", column) else f"'\"{column}\"'"


def is_numeric(column: pd.Series[Any]) -> bool:
    """Return whether the type of a column says that it holds numbers or booleans."""
    return column.dtype.kind in "iufb"


def floats(column: pd.Series[Any]) -> Floats:
    """Return a column of a numeric type as float64; missing numbers are NaN."""
    options = {} if isinstance(column.dtype, np.dtype) else {"na_value": np.nan}
    return np.asarray(column.to_numpy(np.float64, **options))


def check_finite(numbers: Floats, place: Place) -> Floats:
    """Return the numbers of a column.

    Raises:
        FusionError: some are infinite.
    """
    infinite = np.isinf(numbers)
    if count := int(infinite.sum()):
        found = f"{count} infinite, the first in row {place.first(infinite)}"
        raise FusionError(f"{place} should contain finite numbers; found {found}.")
    return numbers


class Cells:
    """The different values of a column that may hold anything.

    Attributes:
        codes: (m,) the position of each row's value in ``values``; -1 where it is missing.
        values: the different ones: a float, a boolean, or text that is neither.
        texts: the same, as they stand but for blanks around them.
    """

    def __init__(self, column: pd.Series[Any], place: Place, decimal: str = ".") -> None:
        try:
            codes, found = column.factorize()
        except TypeError:  # Lists and dicts cannot be compared.
            value = next(value for value in column if not isinstance(value, str | Real | None))
            should = "contain numbers, booleans or text"
            raise FusionError(f"{place} should {should}; found {short_repr(value)}.") from None
        values = [_value(value, decimal) for value in found.tolist()]
        known = np.asarray([value is not None for value in values] + [False])
        positions = np.where(known, np.cumsum(known) - 1, -1)
        self.place, self.decimal = place, decimal
        self.codes: Codes = positions[codes]
        kept = zip(found.tolist(), values, strict=True)
        self.texts = [value_text(one).strip() for one, value in kept if value is not None]
        self.values: list[float | bool | str] = [value for value in values if value is not None]

    def kind(self, advice: str = "") -> str:
        """Return ``number``, ``boolean`` or ``text``; ``advice`` is for a column of mixed types.

        Raises:
            FusionError: the column has more numbers than words, and words.
        """
        kinds = {type(value) for value in self.values}
        if kinds <= {float}:
            return "number"
        if kinds == {bool}:
            return "boolean"
        numbers = [isinstance(value, float) or self._other_mark(str(value)) is not None for value in self.values]
        if 2 * int(self._rows(numbers).sum()) > int((self.codes >= 0).sum()):
            self._refuse([not isinstance(value, float) for value in self.values], advice)
        return "text"

    def numbers(self) -> Floats:
        """Return numbers, and booleans as 0 and 1; NaN where a cell is missing.

        Raises:
            FusionError: there is a word; the message has the first one and its row.
        """
        words = [isinstance(value, str) for value in self.values]
        if any(words):
            self._refuse(words)
        return np.asarray([*map(float, self.values), np.nan], dtype=np.float64)[self.codes]

    def _rows(self, which: list[bool]) -> npt.NDArray[np.bool_]:
        """Return the rows that have one of these values, (m,)."""
        return np.asarray([*which, False])[self.codes]

    def _refuse(self, words: list[bool], advice: str = "") -> NoReturn:
        wrong = self._rows(words)
        position = int(self.place.positions(wrong)[0])
        word = self.texts[self.codes[position]]
        mark = self._other_mark(word.strip())
        advice = f"data.decimal='{mark}'?" if mark else advice
        count, row = count_of(int(wrong.sum()), "word"), self.place.row(position)
        found = f"{count}, the first is {short_repr(word)} in row {row}"
        raise FusionError(f"{self.place} should contain numbers; found {found}.  {advice}".rstrip())

    def _other_mark(self, word: str) -> str | None:
        """Return the decimal mark with which a word is a number."""
        return next((mark for mark in ".," if mark != self.decimal and number(word, mark) is not None), None)


def _value(value: Any, decimal: str) -> float | bool | str | None:
    """Return the meaning of a cell; None if it is missing."""
    if isinstance(value, str):
        word = value.strip()
        if word in _MISSING:
            return None
        if (truth := _BOOLEANS.get(word.lower())) is not None:
            return bool(truth)
        found = number(word, decimal)
        return word if found is None else found
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Real | Decimal):
        return None if value != value else float(value)
    return str(value)


def categories(column: pd.Series[Any], place: Place, decimal: str, numeric: bool) -> tuple[Codes, list[str]]:
    """Return a column as categories: the position of each row's text, -1 where it is missing, and the texts.

    Args:
        column: any cells.
        place: of the column.
        decimal: the decimal point of numbers in text.
        numeric: whether text that is a number stands for this number, so that 1 and 1.0 are one category.
    """
    cells = Cells(column, place, decimal)
    return cells.codes, [*map(value_text, cells.values)] if numeric else cells.texts


def exact_text(column: pd.Series[Any]) -> list[str]:
    """Return ids or groups exactly as they stand; empty where a cell has nothing."""
    values: list[Any] = column.tolist()
    if set(map(type, values)) == {str}:
        return values
    return ["" if missing else value_text(value) for value, missing in zip(values, column.isna(), strict=True)]


def text_array(values: Sequence[str]) -> npt.NDArray[np.str_]:
    """Return texts as an array (m,) of numpy's own type."""
    return np.asarray(values, dtype=np.str_)
