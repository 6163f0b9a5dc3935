"""Finds out what the columns of views hold: numbers, booleans, or text as categories."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusionkit._util.text import short_repr
from fusionkit.errors import FusionError
from fusionkit.experiment.tables.columns import Cells, Place, categories, is_numeric, quoted
from fusionkit.experiment.tables.format import Column, View

if TYPE_CHECKING:
    import pandas as pd

_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d\d")
_DATES = "numbers can be made of dates, such as the year or the days since a date"
_EMBEDDINGS = "docs/your-own-data.md shows how text becomes numbers (embeddings)"


@dataclass(frozen=True)
class Describer:
    """Describes the columns of one file.

    Attributes:
        what: names the file in messages.
        categorical: the columns whose numbers are categories.
        max_categories: a column with more is refused.
        decimal: the decimal point.
        rows: (m,) the numbers of the rows in the file; None: they count from 0.
    """

    what: str
    categorical: Collection[str] = ()
    max_categories: int = 100
    decimal: str = "."
    rows: npt.NDArray[np.int64] | None = None

    def view(self, name: str, columns: Sequence[str], frame: pd.DataFrame) -> View:
        """Describe a view of these columns.

        Raises:
            FusionError: a column is empty, of mixed types, or has too many categories.
        """
        return View(name, tuple(self.column(column, frame[column]) for column in columns))

    def column(self, name: str, series: pd.Series[Any]) -> Column:
        """Describe a column.

        Raises:
            FusionError: as ``view``.
        """
        place = Place(name, self.what, self.rows)
        if name in self.categorical:
            codes, texts = categories(series, place, self.decimal, numeric=True)
            return self._category(place, codes, texts, numeric=True)
        if is_numeric(series):
            self._check_any(place, series.notna().any())
            return Column(name, "boolean" if series.dtype.kind == "b" else "number")
        cells = Cells(series, place, self.decimal)
        self._check_any(place, cells.values)
        kind = cells.kind(f"data.categorical={quoted(name)} makes categories of all.")
        if kind == "text":
            return self._category(place, cells.codes, cells.texts)
        return Column(name, "boolean" if kind == "boolean" else "number")

    def _category(self, place: Place, codes: npt.NDArray[np.int64], texts: list[str], numeric: bool = False) -> Column:
        self._check_any(place, texts)
        different = sorted({*texts})
        if len(different) > self.max_categories:
            should = f"have at most {self.max_categories} different texts (data.max_categories)"
            first = texts[codes[place.positions(codes >= 0)[0]]]
            found = f"{len(different)}, such as {short_repr(first)}"
            column, names_rows = quoted(place.column), len(different) == len(codes)
            use = f"data.id={column} takes it as the name of the rows" if names_rows else _EMBEDDINGS
            use = _DATES if _DATE.match(first) else use
            way_out = f"data.drop={column} leaves it out; {use}."
            raise FusionError(f"{place} should {should}; found {found}.  {way_out}")
        seen = (True,) * len(different)
        return Column(place.column, "category", tuple(different), seen, numeric)

    def _check_any(self, place: Place, values: Any) -> None:
        if not values:
            way_out = f"data.drop={quoted(place.column)} leaves it out."
            raise FusionError(f"{place} should have a value in some row; found none.  {way_out}")
