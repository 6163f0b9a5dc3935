"""A folder of small tables, written as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionkit.config.options import TableOptions, validate_group
from fusionkit.errors import FusionError
from fusionkit.experiment.source import Batch, Source
from fusionkit.experiment.tables.reading import read_chunks, read_table
from tests.messages import like


@dataclass
class Tables:
    """Writes tables to a folder, and reads them."""

    folder: Path

    def write(self, text: str | bytes, name: str = "t.csv") -> str:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def files(self, **texts: str) -> dict[str, str]:
        """Write a file per view, and return the mapping."""
        return {name: self.write(text, f"{name}.csv") for name, text in texts.items()}

    def options(self, path: str | Mapping[str, str], **options: Any) -> TableOptions:
        return validate_group(TableOptions, {"name": "table", "path": path, "label": "y", **options}, "data")

    def read(self, text: str | bytes, name: str = "t.csv", **options: Any) -> Source:
        return read_table(self.options(self.write(text, name), **options))

    def join(self, texts: dict[str, str], **options: Any) -> Source:
        return read_table(self.options(self.files(**texts), **{"id": "id", **options}))

    def chunks(self, source: Source, text: str | bytes, rows: int = 100, name: str = "new.csv") -> list[Batch]:
        assert source.table is not None
        return list(read_chunks(source.table, self.write(text, name), rows))

    def refused(self, text: str | bytes, sentence: str, name: str = "t.csv", **options: Any) -> None:
        """Assert that reading fails with a sentence like this one, in which {t} stands for the file."""
        with pytest.raises(FusionError, match=like(sentence.replace("{t}", str(self.folder / name)))):
            self.read(text, name, **options)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def equal(array: Any, expected: Any) -> None:
    """Assert that numbers are equal; NaN equals NaN."""
    np.testing.assert_array_equal(array, np.asarray(expected, dtype=np.float64))
