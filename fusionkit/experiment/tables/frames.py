"""Data frames as the views of a run in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fusionkit.errors import FusionError
from fusionkit.experiment.source import Array, Labels
from fusionkit.experiment.tables.columns import Place
from fusionkit.experiment.tables.describing import Describer
from fusionkit.experiment.tables.format import TableFormat
from fusionkit.experiment.tables.roles import read_labels, read_role


def encode_frames(
    frames: Mapping[str, pd.DataFrame], impute: Any, *, whole: bool
) -> tuple[dict[str, Array], TableFormat | None]:
    """Return the encoded views, and how; None where one table could not hold them.

    Args:
        frames: a view each.
        impute: as ``data.impute``.
        whole: whether there are no other views.

    Raises:
        FusionError: a column that cannot be used; text where one table could not hold the views.
    """
    views, arrays = [], {}
    for name, frame in frames.items():
        frame, what = _with_texts(name, frame), f"view {name!r}"
        view = Describer(what).view(name, list(frame.columns), frame)
        views.append(view)
        arrays[name], _ = TableFormat((view,), impute=impute).encode_view(view, frame, what)
    columns = [column.name for view in views for column in view.columns]
    if whole and len({*columns}) == len(columns):
        return arrays, TableFormat(tuple(views), impute=impute)
    for view in views:
        for column in view.columns:
            if column.kind == "category":
                unless = "unless every view is a data frame and their columns have different names"
                raise FusionError(
                    f"Column {column.name!r} of view {view.name!r} should contain numbers, {unless}; found text."
                )
    return arrays, None


def _with_texts(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with texts as the names of its columns, all different."""
    columns = [str(column).strip() for column in frame.columns]
    column, count = max(Counter(columns).items(), key=lambda item: item[1], default=("", 0))
    if count != 1:
        found = f"{column!r} {count} times" if count else "no column"
        raise FusionError(f"View {name!r} should have columns with different names; found {found}.")
    return frame.set_axis(columns, axis=1)


def frame_labels(frame: pd.DataFrame, what: str) -> Labels:
    """Return the columns of a frame as labels.

    Raises:
        FusionError: a label is missing or infinite, or a column has numbers and words.
    """
    frame = _with_texts("label", frame)
    return read_labels(frame, list(frame.columns), what, ".", tags=False)


def frame_role(role: str, frame: pd.DataFrame, what: str) -> Array:
    """Return the values (m,) of the only column of a frame, as a role.

    Raises:
        FusionError: a value is missing or does not fit the role.
    """
    return read_role(role, frame.iloc[:, 0], Place(str(frame.columns[0]), what), ".")
