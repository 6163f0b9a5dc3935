"""Joins a file per view by the ids of their rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from fusionkit._util.text import count_of, short_repr
from fusionkit.config.options import TableOptions
from fusionkit.errors import ConfigError, FusionError, nearest
from fusionkit.experiment.source import ROLES
from fusionkit.experiment.tables.columns import Place
from fusionkit.experiment.tables.files import TableFile
from fusionkit.experiment.tables.layout import names_of
from fusionkit.experiment.tables.roles import read_ids

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """The rows of one file.

    Attributes:
        table: the file.
        frame: its rows.
        ids: of the rows, as they stand.
    """

    table: TableFile
    frame: pd.DataFrame
    ids: list[str]


def read_part(table: TableFile, id: str, exact: Collection[str] = ()) -> Part:
    """Read a file with ids.

    Args:
        table: the file.
        id: the column of ids.
        exact: other columns that are text as it stands.

    Raises:
        FusionError: the column is missing, or an id is empty or there twice.
    """
    if id not in table.names:
        found = f"none.{nearest(id, table.names)}"
        raise FusionError(f"{table.path} should have the column {id!r}, by which the files are joined; found {found}")
    frame = table.frame({id, *exact} & {*table.names})
    return Part(table, frame, read_ids(frame[id], Place(id, str(table.path))))


def owner_of(tables: Mapping[str, TableFile], options: TableOptions) -> str:
    """Return the name of the file with the label and the roles.

    Raises:
        FusionError: no file has a column, or two have it; or one has the label and another a role.
    """
    owner, first = "", ""
    keys = [("label", label) for label in names_of(options.label)]
    roles = {key: getattr(options, key) for key in ROLES}
    keys += [(key, column) for key, column in roles.items() if column not in (None, options.id)]  # All have the id.
    for key, column in keys:
        holders = [name for name, table in tables.items() if column in table.names]
        if len(holders) != 1:
            paths = " and in ".join(str(tables[name].path) for name in holders)
            known = [name for table in tables.values() for name in table.names]
            found = f"it in {paths}." if holders else f"{column!r} in none.{nearest(column, known)}"
            files = ", ".join(str(table.path) for table in tables.values())
            raise FusionError(f"data.{key} should name a column of one of the files {files}; found {found}")
        owner, first = owner or holders[0], first or column
        if holders[0] != owner:
            should = f"stand in {tables[owner].path}, as {first!r} does"
            raise FusionError(
                f"The column {column!r} (data.{key}) should {should}; found it in {tables[holders[0]].path}."
            )
    if not owner:
        raise FusionError("data.label should name different columns; found [].")
    return owner


def id_of(options: TableOptions) -> str:
    """Return the column by which a file per view is joined.

    Raises:
        ConfigError: there is none, or ``data.views`` is given too.
    """
    if options.id is None:
        raise ConfigError("data.id should name the column that joins the files of data.path; found null.")
    if options.views is not None:
        raise ConfigError("data.views should be null where data.path has a file per view; found both.")
    return str(options.id)


@dataclass(frozen=True)
class Joined:
    """The rows of several files, by their ids.

    Attributes:
        ids: (m,) of the rows.
        rows: file -> (m,) the numbers of these rows in the file; -1 where it lacks the id.
        keep: for each row before ``data.join``, whether it is left.
        notes: lines for the user.
        unlabelled: the number of ids that are left out because they have no label.
    """

    ids: list[str]
    rows: dict[str, Positions]
    keep: npt.NDArray[np.bool_]
    notes: list[str]
    unlabelled: int


def join(parts: dict[str, Part], views: Sequence[str], owner: str | None = None, how: str = "outer") -> Joined:
    """Join files.

    Args:
        parts: their rows.
        views: those of them that are views.
        owner: the file that has the rows; None: the ids of all views.
        how: ``outer``; or ``inner``, to keep the rows that all views have.

    Raises:
        FusionError: a file has no id of the others, or there is no row that all files have.
    """
    ids = parts[owner].ids if owner else list(dict.fromkeys(one for name in views for one in parts[name].ids))
    positions = {name: _positions(parts[name], ids) for name in views}
    present = np.stack([rows >= 0 for rows in positions.values()])
    keep = np.asarray(present.all(0) if how == "inner" else np.ones(len(ids), dtype=np.bool_))
    if not keep.any():
        raise FusionError("data.join=inner should keep the rows that all files of data.path have; found none.")
    rows = {name: found[keep] for name, found in positions.items()}
    notes = []
    for name, found in positions.items():
        table = parts[name].table
        if owner and (extra := len(parts[name].ids) - int((found >= 0).sum())):
            notes.append(f"{table.path.name}: {count_of(extra, 'id')} without a label, left out.")
        if absent := int((rows[name] < 0).sum()):
            notes.append(
                f"{table.path.name}: the view {name!r} is absent from {absent} of {count_of(len(rows[name]), 'row')}."
            )
    if left := int((~keep).sum()):
        notes.append(f"{count_of(left, 'row')} without all views, left out by data.join=inner.")
    unlabelled = len({one for name in views for one in parts[name].ids}.difference(ids))
    return Joined([one for one, kept in zip(ids, keep, strict=True) if kept], rows, keep, notes, unlabelled)


def _positions(part: Part, ids: list[str]) -> Positions:
    """Return the rows (m,) that have these ids; -1 where there is none."""
    found = np.asarray(pd.Index(part.ids, dtype=object).get_indexer(pd.Index(ids, dtype=object)), dtype=np.int64)
    if (found < 0).all():
        should = f"have ids of the other files, such as {short_repr(ids[0])}"
        raise FusionError(f"{part.table.path} should {should}; found others, such as {short_repr(part.ids[0])}.")
    return found
