"""Reads the rows of one file: .csv, .tsv, .csv.gz or .parquet."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import stat
import warnings
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from fusionkit._util.files import content_digest
from fusionkit._util.text import count_of, error_message, printable
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.tables.columns import MISSING

ENDINGS = (".csv", ".tsv", ".csv.gz", ".parquet")
_SEPARATORS = ",;\t|"
#: With a blank before them too, which pandas skips before numbers alone.
_WORDS = [f"{blank}{word}" for word in MISSING for blank in ("", " ")]
#: pandas writes its index under such a name.
_INDEX = re.compile(r"__index_level_\d+__")
#: What reading a damaged file raises; pyarrow's and pandas' own exceptions are ValueErrors or OSErrors.
_DAMAGES = (OSError, ValueError, EOFError, zlib.error, csv.Error)


@dataclass(frozen=True)
class TableFile:
    """A file with a header.

    Attributes:
        path: of the file.
        header: the names of its columns, without blanks around them; empty for one without a name.
        separator: between the columns.
        decimal: the decimal point.
    """

    path: Path
    header: list[str]
    separator: str
    decimal: str

    @property
    def unnamed(self) -> bool:
        """Whether a column is an index without a name."""
        return "" in self.header

    @property
    def names(self) -> list[str]:
        """The names of the columns, but that of an index."""
        return [name for name in self.header if name]

    @property
    def parquet(self) -> bool:
        """Whether the file is a .parquet file."""
        return self.path.name.lower().endswith(".parquet")

    def digest(self) -> str:
        """Return the SHA-256 of the file."""
        with explained(self.path):
            return content_digest(self.path)

    def frame(self, exact: Collection[str]) -> pd.DataFrame:
        """Return all rows.

        Args:
            exact: the columns that are text as it stands.

        Raises:
            FusionError: a damaged file, or one without rows.
        """
        with explained(self.path):
            if self.parquet:
                frame = _pyarrow().read_table(self.path).to_pandas(ignore_metadata=True).set_axis(self.header, axis=1)
            else:
                rows = self._csv(exact, exact)
                frame = next((frame for frame, _ in rows), None)
        if frame is None or not len(frame):
            raise FusionError(f"{self.path} should have rows below its header; found none.")
        return frame

    def chunks(
        self, columns: Collection[str], texts: Collection[str], exact: Collection[str], rows: int
    ) -> Iterator[tuple[pd.DataFrame, float]]:
        """Return the rows in frames of at most ``rows``, each with the share of the file read so far.

        Args:
            columns: at least these.
            texts: those that are read as text.
            exact: those of the texts of which no word stands for a missing value.
            rows: per frame.

        Raises:
            FusionError: a damaged file.
        """
        with explained(self.path):
            if self.parquet:
                yield from self._batches(columns, rows)
            else:
                yield from self._csv(texts, exact, rows)

    def _batches(self, columns: Collection[str], rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
        with _pyarrow().ParquetFile(self.path) as file:
            stored = dict(zip(self.header, file.schema_arrow.names, strict=True))
            wanted, total, done = {stored[name]: name for name in columns}, max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(rows, columns=list(wanted)):
                done += batch.num_rows
                yield batch.to_pandas(ignore_metadata=True).rename(columns=wanted), done / total

    def _csv(
        self, texts: Collection[str], exact: Collection[str], chunksize: int | None = None
    ) -> Iterator[tuple[pd.DataFrame, float]]:
        """Return the rows of a CSV: as many at a time as ``chunksize`` says, with the share of the file read so far."""
        named = {"names": self.header, "header": 0, "index_col": False, "sep": self.separator, "decimal": self.decimal}
        # A list for all columns, where it can be: pandas takes long for each column's own.
        words = {name: _WORDS for name in self.header if name not in exact} if exact else _WORDS
        missing = {"keep_default_na": False, "na_values": words}
        size = max(self.path.stat().st_size, 1)
        try:
            with (
                self.path.open("rb") as raw,
                pd.read_csv(
                    _unpacked(self.path, raw),
                    iterator=True,
                    encoding="utf-8",
                    dtype=dict.fromkeys(texts, object),
                    low_memory=False,
                    **named,
                    **missing,
                ) as reader,
            ):
                while (frame := _next(reader, chunksize)) is not None:
                    yield frame, min(raw.tell() / size, 1.0)
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            self._check_widths()
            raise FusionError(f"{self.path} should be a complete table; found it damaged ({error}).") from error

    def _check_widths(self) -> None:
        """Refuse the first row with more cells than the header."""
        with self.path.open("rb") as raw:
            text = io.TextIOWrapper(_unpacked(self.path, raw), encoding="utf-8-sig", newline="")
            lines = (cells for cells in csv.reader(text, delimiter=self.separator) if cells)
            next(lines)
            for row, cells in enumerate(lines):
                if len(cells) > len(self.header):
                    should = f"have {count_of(len(self.header), 'cell')} in every row, as its header"
                    advice = f"  data.separator={self.separator!r} and data.decimal={self.decimal!r} were taken."
                    raise FusionError(f"{self.path} should {should}; found {len(cells)} in row {row}.{advice}")


def open_table(path: str | Path, separator: str | None = None, decimal: str = ".") -> TableFile:
    """Return the file, of which the header is read.

    Args:
        path: of a file with one of ``ENDINGS``.
        separator: between the columns; None finds it in the header.
        decimal: the decimal point.

    Raises:
        FusionError: there is no such file, or none with a header of different names.
        ConfigError: the separator is the decimal point.
        ModuleNotFoundError: pyarrow, which reads .parquet, is not installed.
    """
    path = Path(path)
    if separator == decimal:
        raise ConfigError(f"data.separator and data.decimal should differ; found {decimal!r} for both.")
    with explained(path):
        if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):  # Opening a pipe would wait for a writer.
            raise FusionError(f"The data file should be a table; found {path}: a pipe or a device.")
        if not path.name.lower().endswith(ENDINGS) and not path.is_dir():
            raise FusionError(f"The data file should end in {', '.join(ENDINGS)}; found {path}.")
        if path.name.lower().endswith(".parquet"):
            with _pyarrow().ParquetFile(path) as file:
                names = ["" if _INDEX.fullmatch(name) else name for name in file.schema_arrow.names]
            table = TableFile(path, _stripped(names), ",", decimal)
        else:
            names, separator = _csv_header(path, separator, decimal)
            table = TableFile(path, names, separator, decimal)
    _check_header(table)
    return table


def _stripped(names: list[str]) -> list[str]:
    return [name.strip() for name in names]


def _check_header(table: TableFile) -> None:
    for name, count in Counter(table.names).items():
        if count > 1:
            raise FusionError(f"{table.path} should have columns of different names; found {name!r} {count} times.")
    for i, name in enumerate(table.header[1:], start=1):
        if not name and not table.parquet:
            raise FusionError(f"{table.path} should name its columns in the header; found none for column {i}, from 0.")
    if not table.names:
        raise FusionError(f"{table.path} should have a header with the names of its columns; found none.")


def _csv_header(path: Path, separator: str | None, decimal: str) -> tuple[list[str], str]:
    """Return the names in the first line that is not empty, and the separator."""
    with path.open("rb") as raw:
        text = io.TextIOWrapper(_unpacked(path, raw), encoding="utf-8-sig", newline="")
        record = next((line for line in text if line.strip(" \r\n")), "")
        while record.count('"') % 2 and (line := text.readline()):  # A name may hold line breaks, in quotes.
            record += line
    if separator is None:
        outside = re.sub(r'"[^"]*"', "", record)
        order = "\t,;|" if path.name.lower().endswith(".tsv") else _SEPARATORS
        separator = max(order.replace(decimal, ""), key=outside.count)  # The first of equals.
    rows = list(csv.reader(io.StringIO(record, newline=""), delimiter=separator))
    return _stripped(rows[0] if rows else [""]), separator


def _next(reader: Any, rows: int | None) -> pd.DataFrame | None:
    """Return the next rows; None at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame: pd.DataFrame = reader.read(rows)
        except StopIteration:
            return None
    return frame if len(frame) else None


def _unpacked(path: Path, raw: Any) -> Any:
    return gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw


def _pyarrow() -> Any:
    return import_module("pyarrow.parquet")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with a file.

    Raises:
        FusionError: it cannot be opened, or is damaged.
    """
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        found = f"{path}: {os.strerror(error.errno) if error.errno else error_message(error)}"
        raise FusionError(f"The data file should be a table; found {found}.") from None
    except UnicodeDecodeError as error:
        found = f"the byte {error.object[error.start]:#04x}, which is invalid there"
        raise FusionError(f"{path} should contain text in UTF-8; found {found}.") from None
    except FusionError:
        raise
    except _DAMAGES as error:
        found = printable(error_message(error, 200))
        raise FusionError(f"{path} should be a complete table; found it damaged ({found}).") from error
