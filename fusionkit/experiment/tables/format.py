"""How the columns of a table become views: plain JSON, so that a trained run encodes new rows as it did its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from fusionkit.errors import FusionError, nearest
from fusionkit.experiment.tables.columns import Cells, Floats, Place, categories, floats, is_numeric

if TYPE_CHECKING:
    import pandas as pd

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """A column of a view.

    Attributes:
        name: as in the header.
        kind: ``number``; ``boolean``, encoded as 0 and 1; or ``category``, one-hot.
        categories: the texts, in the order of the encoded columns.
        seen: which of the categories occur in the training part; the others are encoded as zeros.
        numeric: whether the categories are numbers, written in any way.
    """

    name: str
    kind: Literal["number", "boolean", "category"]
    categories: tuple[str, ...] = ()
    seen: tuple[bool, ...] = ()
    numeric: bool = False

    def __post_init__(self) -> None:
        if len(self.seen) != len(self.categories) or bool(self.categories) != (self.kind == "category"):
            raise ValueError(f"Column {self.name!r} should have a mark for every category; found {self.seen}.")

    @property
    def width(self) -> int:
        """The number of encoded columns."""
        return len(self.categories) or 1

    def names(self) -> list[str]:
        """Return the names of the encoded columns."""
        return [f"{self.name}={category}" for category in self.categories] or [self.name]


@dataclass(frozen=True)
class View:
    """A view of a table: its name and columns, in order."""

    name: str
    columns: tuple[Column, ...]

    @property
    def width(self) -> int:
        """The number of encoded columns."""
        return sum(column.width for column in self.columns)

    def parts(self) -> Iterator[tuple[Column, slice]]:
        """Return each column and the encoded columns that are its own."""
        start = 0
        for column in self.columns:
            yield column, slice(start, start + column.width)
            start += column.width


@dataclass(frozen=True)
class TableFormat:
    """How a table is encoded.

    Attributes:
        views: in order.
        id: the column with the names of the rows.
        separator: between the columns; None finds it in the header.
        decimal: the decimal point.
        files: with a file per view the names of all files, also of one that is no view; else empty.
        impute: ``mean``: single missing numbers are allowed.
    """

    views: tuple[View, ...]
    id: str | None = None
    separator: str | None = None
    decimal: str = "."
    files: tuple[str, ...] = ()
    impute: Literal["mean"] | None = None

    def __post_init__(self) -> None:
        if self.files and self.id is None:
            raise ValueError("A file per view should have a column of ids; found none.")

    @property
    def dims(self) -> list[int]:
        """The widths of the encoded views."""
        return [view.width for view in self.views]

    def names(self) -> dict[str, list[str]]:
        """Return the names of the encoded columns of each view."""
        return {view.name: [name for column in view.columns for name in column.names()] for view in self.views}

    def to_json(self) -> dict[str, Any]:
        """Return the description in JSON types."""
        described: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return described

    @classmethod
    def from_json(cls, value: Any) -> TableFormat:
        """Return what ``to_json`` described.

        Raises:
            ValueError: a damaged description.
        """
        return _FORMAT.validate_json(json.dumps(value), strict=True)

    def encode(
        self, frame: pd.DataFrame, what: str, rows: npt.NDArray[np.int64] | None = None
    ) -> tuple[list[Floats], dict[str, int]]:
        """Encode rows; columns are found by name, and others ignored.

        Args:
            frame: m rows.
            what: names the frame in messages.
            rows: (m,) the numbers of the rows for messages; None: they count from 0.

        Returns:
            The k views (m, n_i), with rows of NaN where a view is absent; and column -> the number of its cells whose
            category was not seen in the training part, for the columns that have such.

        Raises:
            FusionError: a column is missing, or has words or missing values where numbers are needed.
        """
        encoded = [self.encode_view(view, frame, what, rows) for view in self.views]
        unseen: dict[str, int] = {}
        for _, counts in encoded:
            add_counts(unseen, counts)
        return [array for array, _ in encoded], unseen

    def encode_view(
        self, view: View, frame: pd.DataFrame, what: str, rows: npt.NDArray[np.int64] | None = None
    ) -> tuple[Floats, dict[str, int]]:
        """Encode one view, as ``encode`` does."""
        array = np.empty((view.width, len(frame))).T  # Filled by columns.
        absent = np.ones(len(frame), dtype=np.bool_)
        unseen = {}
        for column, part in view.parts():
            series, place = _find(column.name, view, frame, what), Place(column.name, what, rows)
            if column.kind == "category":
                missing, count = _one_hot(column, series, place, self.decimal, array[:, part])
                if count:
                    unseen[column.name] = count
            else:
                numbers = floats(series) if is_numeric(series) else Cells(series, place, self.decimal).numbers()
                array[:, part.start] = numbers
                missing = np.isnan(numbers)
            absent &= missing
        array[absent] = np.nan
        self._check(view, array, absent, what, rows)
        return array, unseen

    def _check(self, view: View, array: Floats, absent: Bools, what: str, rows: npt.NDArray[np.int64] | None) -> None:
        """Refuse infinite numbers, and single missing ones unless they are imputed."""
        if np.isfinite(array).all():
            return
        for column, part in view.parts():
            place, cells = Place(column.name, what, rows), array[:, part.start]
            infinite = np.isinf(cells)
            if count := int(infinite.sum()):
                found = f"{count} infinite, the first in row {place.first(infinite)}"
                raise FusionError(f"{place} should contain finite numbers; found {found}.")
            missing = np.isnan(cells) & ~absent
            if self.impute is None and (count := int(missing.sum())):
                should = f"have no missing number in a row that has the view {view.name!r}"
                found = f"{count}, the first in row {place.first(missing)}"
                advice = "A run with data.impute=mean fills them with the means of its training part."
                raise FusionError(f"{place} should {should}; found {found}.  {advice}")

    def fitted(
        self, views: Mapping[str, npt.NDArray[Any]], training_rows: npt.NDArray[Any]
    ) -> tuple[TableFormat, dict[str, npt.NDArray[Any]]]:
        """Return the format that counts as seen what occurs in the training part, and the views encoded with it.

        Args:
            views: as they were encoded with this format.
            training_rows: the numbers of the rows of the training part, or a mask.
        """
        described, arrays = [], {}
        for view in self.views:
            array, columns = views[view.name], []
            occurs = (array[training_rows] > 0).any(0)
            unseen = np.zeros(view.width, dtype=np.bool_)
            for column, part in view.parts():
                if column.kind == "category":
                    column = replace(column, seen=tuple(occurs[part].tolist()))
                    unseen[part] = ~occurs[part]
                columns.append(column)
            described.append(replace(view, columns=tuple(columns)))
            arrays[view.name] = np.where(unseen & ~np.isnan(array), 0.0, array) if unseen.any() else array
        return replace(self, views=tuple(described)), arrays


_FORMAT = TypeAdapter(TableFormat)


def add_counts(total: dict[str, int], counts: Mapping[str, int]) -> None:
    """Add ``counts`` to ``total``, in place."""
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


def _find(name: str, view: View, frame: pd.DataFrame, what: str) -> pd.Series[Any]:
    """Return a column by name; blanks around names do not count.

    Raises:
        FusionError: it is missing, or there twice.
    """
    if name not in frame.columns:
        frame = frame.set_axis([str(one).strip() for one in frame.columns], axis=1)
    if name not in frame.columns:
        found = f"none.{nearest(name, frame.columns)}"
        raise FusionError(f"The column {name!r} of the view {view.name!r} should be in {what}; found {found}")
    column = frame[name]
    if column.ndim > 1:
        raise FusionError(f"The column {name!r} should be in {what} once; found it {column.shape[1]} times.")
    return column


def _one_hot(column: Column, series: pd.Series[Any], place: Place, decimal: str, out: Floats) -> tuple[Bools, int]:
    """Write a column of categories to ``out`` (m, width); return which cells are missing, and the number of unseen."""
    codes, texts = categories(series, place, decimal, column.numeric)
    positions = {text: i for i, text in enumerate(column.categories) if column.seen[i]}
    indices = np.asarray([positions.get(text, -1) for text in texts] + [-1])[codes]
    out[...] = 0.0
    rows = np.flatnonzero(indices >= 0)
    out[rows, indices[rows]] = 1.0
    missing = codes < 0
    return missing, int((~missing).sum()) - len(rows)
