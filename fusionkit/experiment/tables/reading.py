"""Reads a table, or a file per view: all rows to train on, or chunks of new rows to predict."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from fusionkit._util.text import listed
from fusionkit.config.options import TableOptions
from fusionkit.errors import FusionError, nearest
from fusionkit.experiment.source import ROLES, Array, Batch, Labels, Source
from fusionkit.experiment.tables import joining
from fusionkit.experiment.tables.columns import Floats, Place, text_array
from fusionkit.experiment.tables.describing import Describer
from fusionkit.experiment.tables.files import TableFile, open_table
from fusionkit.experiment.tables.format import TableFormat, View, add_counts, unseen_text
from fusionkit.experiment.tables.layout import kept, lay_out, names_of, special
from fusionkit.experiment.tables.notes import cell_notes
from fusionkit.experiment.tables.roles import read_ids, read_labels, read_role

#: The most rows and cells of the blocks in which a file is read: pandas takes long for each block, however small.
_ROWS, _CELLS = 2**14, 2**21


def read_table(options: TableOptions, known: TableFormat | None = None) -> Source:
    """Read all rows.

    Args:
        options: checked.
        known: encode with the format of another table, as for a test part in a file of its own; of the roles only the
            id need be there.

    Raises:
        FusionError: the file or a column cannot be used; the message names file, column, row and value.
        ConfigError: options that do not go together.
        ModuleNotFoundError: pyarrow, which reads .parquet, is not installed.
    """
    if known is not None:
        _check_form(known, options.path)
    if isinstance(options.path, str):
        source = _read_one(options, open_table(options.path, options.separator, options.decimal), known)
    else:
        source = _read_joined(options, known)
    if known is not None or source.table is None:
        return source
    return replace(source, notes=[*source.notes, *cell_notes(source.table, source.views)])


def _read_one(options: TableOptions, table: TableFile, known: TableFormat | None) -> Source:
    what, notes = str(table.path), _index_notes([table])
    if known is None:
        layout = lay_out(table.names, options, what)
        frame = table.frame(_exact(options) | layout.categorical)
        describe = Describer(what, layout.categorical, options.max_categories, options.decimal)
        known = _format(options, [describe.view(name, columns, frame) for name, columns in layout.views.items()])
        notes += layout.notes
    else:
        _check_names(known, table)
        options = _where_present(options, table.names)
        frame = table.frame(_exact(options) | _categories(known))
    views, unseen = known.encode(frame, what)
    labels, roles = _labels_and_roles(options, frame, what)
    return Source(
        path=table.path,
        digest=table.digest(),
        views=dict(zip(known.names(), views, strict=True)),
        labels=labels,
        roles=roles,
        notes=[*notes, *map(unseen_text, [unseen] if unseen else [])],
        table=known,
    )


def _read_joined(options: TableOptions, known: TableFormat | None) -> Source:
    id = joining.id_of(options)
    tables = {name: open_table(path, options.separator, options.decimal) for name, path in options.path.items()}
    if known is None:
        columns, categorical, notes = _columns(tables, options)
    else:
        options = _where_present(options, [name for table in tables.values() for name in table.names])
        columns, categorical, notes = known.names(), _categories(known), []
    owner, views = joining.owner_of(tables, options), list(columns)
    parts = {
        name: joining.read_part(table, id, _exact(options) | categorical)
        for name, table in tables.items()
        if name in views or name == owner
    }
    joined = joining.join(parts, views, owner, options.join)
    encoded, described, unseen = {}, [], dict[str, int]()
    for i, name in enumerate(views):
        rows = joined.rows[name]
        if known is None:
            present, what = rows[rows >= 0], str(tables[name].path)
            describe = Describer(what, categorical, options.max_categories, options.decimal, present)
            described.append(describe.view(name, columns[name], parts[name].frame.iloc[present]))
        format = known or _format(options, described)
        encoded[name], counts = _encode(format, format.views[i], parts[name], rows)
        add_counts(unseen, counts)
    labels, roles = _labels_and_roles(options, parts[owner].frame, str(tables[owner].path))
    return Source(
        path=tables[owner].path,
        digest=hashlib.sha256("".join(table.digest() for table in tables.values()).encode()).hexdigest(),
        views=encoded,
        labels=replace(labels, values=labels.values[joined.keep]),
        roles={role: values[joined.keep] for role, values in roles.items()},
        notes=[*_index_notes(tables.values()), *notes, *joined.notes, *map(unseen_text, [unseen] if unseen else [])],
        table=known or _format(options, described, list(tables)),
        unlabelled=joined.unlabelled,
    )


def _columns(
    tables: Mapping[str, TableFile], options: TableOptions
) -> tuple[dict[str, list[str]], frozenset[str], list[str]]:
    """Return the columns of each file that is a view, those whose numbers are categories, and lines for the user."""
    names = [name for table in tables.values() for name in table.names]
    free, categorical, notes = kept(names, options, "one of the files")
    usable = {*free}
    columns = {name: [one for one in table.names if one in usable] for name, table in tables.items()}
    columns = {name: found for name, found in columns.items() if found}
    if not columns:
        raise FusionError("data.path should have a file with columns besides label and roles; found none.")
    return columns, categorical, notes


def _encode(
    format: TableFormat, view: View, part: joining.Part, rows: joining.Positions
) -> tuple[Floats, dict[str, int]]:
    """Return a view of joined rows, NaN where the file lacks them."""
    present = rows >= 0
    encoded, unseen = format.encode_view(view, part.frame.iloc[rows[present]], str(part.table.path), rows[present])
    if present.all():
        return encoded, unseen
    array = np.full((len(rows), view.width), np.nan)
    array[present] = encoded
    return array, unseen


def _labels_and_roles(options: TableOptions, frame: pd.DataFrame, what: str) -> tuple[Labels, dict[str, Array]]:
    names, columns = special(frame.columns, options, what)
    labels = read_labels(frame, names, what, options.decimal, options.label_separator is not None)
    roles = {role: read_role(role, frame[name], Place(name, what), options.decimal) for role, name in columns.items()}
    return labels, roles


def _exact(options: TableOptions) -> set[str]:
    """Return the columns that are text as it stands."""
    tags = names_of(options.label) if options.label_separator is not None else []
    return {name for name in (options.id, options.group, *tags) if name is not None}


def _format(options: TableOptions, views: Sequence[View], files: Sequence[str] = ()) -> TableFormat:
    return TableFormat(tuple(views), options.id, options.separator, options.decimal, tuple(files), options.impute)


def _index_notes(tables: Iterable[TableFile]) -> list[str]:
    return [
        f"{table.path.name}: the column without a name, an index, is left out." for table in tables if table.unnamed
    ]


def _check_form(format: TableFormat, path: str | Mapping[str, str]) -> None:
    """Refuse a single file in place of a file per view, and the other way round.

    Raises:
        FusionError: says which form it should be, or which file is missing or unknown.
    """
    if isinstance(path, str):
        if format.files:
            should = f"be a mapping with a file for each of {list(format.names())}, as the run was trained on"
            raise FusionError(f"data.path should {should}; found the single file {path}.")
        return
    if not format.files:
        raise FusionError(f"data.path should be a single file, as the run was trained on; found {dict(path)}.")
    for name in format.names():
        if name not in path:
            raise FusionError(f"data.path should have a file for the view {name!r}; found files for {list(path)}.")
    for name in path:
        if name not in format.files:
            known = list(format.files)
            raise FusionError(f"data.path should have files for {known}; found {name!r}.{nearest(name, known)}")


def read_chunks(format: TableFormat, path: str | Mapping[str, str], rows: int) -> Iterator[Batch]:
    """Read new rows, which need no label.

    A .csv file, or .parquet, is read in constant memory; a file per view is joined as a whole.

    Args:
        format: of the table that the run was trained on.
        path: of the same form: a file, or a mapping with a file per view.
        rows: at most, per chunk.

    Raises:
        FusionError: the file or a column cannot be used; the message names file, column, row and value.
        ModuleNotFoundError: pyarrow, which reads .parquet, is not installed.
    """
    _check_form(format, path)
    if isinstance(path, str):
        yield from _chunks_of_one(format, open_table(path, format.separator, format.decimal), rows)
    else:
        yield from _chunks_of_joined(format, path, rows)


def _chunks_of_one(format: TableFormat, table: TableFile, rows: int) -> Iterator[Batch]:
    what = str(table.path)
    _check_names(format, table)
    exact = [] if format.id is None else [format.id]
    columns = [column for view in format.views for column in view.columns]
    texts = [*exact, *(column.name for column in columns if column.kind != "number")]
    names = [*exact, *(column.name for column in columns)]
    start, block = 0, max(rows, min(_ROWS, _CELLS // max(len(table.header), sum(format.dims))))
    for frame, fraction in table.chunks(names, texts, exact, block):
        numbered = np.arange(start, start + len(frame))
        views, unseen = format.encode(frame, what, numbered)
        ids = None
        if format.id is not None:
            ids = text_array(read_ids(frame[format.id], Place(format.id, what, numbered), distinct=False))
        for i in range(0, len(frame), rows):
            part = slice(i, i + rows)
            yield Batch(
                start=start + i,
                ids=None if ids is None else ids[part],
                views=[view[part] for view in views],
                unseen={} if i else unseen,
                fraction=fraction,
            )
        start += len(frame)
    if not start:
        raise FusionError(f"{what} should have rows below its header; found none.")


def _check_names(format: TableFormat, table: TableFile) -> None:
    """Refuse a file without a column that the run needs, before any row is read."""
    needed = [column.name for view in format.views for column in view.columns]
    known = {None, *table.names}
    missing = [str(name) for name in [*needed, format.id] if name not in known]
    if missing:
        found = f"{len(missing)} missing: {listed(missing)}."
        should = "have the columns that the run was trained on"
        raise FusionError(f"{table.path} should {should}; found {found}{nearest(missing[0], table.names)}")


def _chunks_of_joined(format: TableFormat, path: Mapping[str, str], rows: int) -> Iterator[Batch]:
    parts = {}
    for name in format.names():
        table = open_table(path[name], format.separator, format.decimal)
        parts[name] = joining.read_part(table, str(format.id), _categories(format))
    joined = joining.join(parts, list(parts))
    for start in range(0, len(joined.ids), rows):
        part = slice(start, start + rows)
        views, unseen = [], dict[str, int]()
        for view in format.views:
            array, counts = _encode(format, view, parts[view.name], joined.rows[view.name][part])
            add_counts(unseen, counts)
            views.append(array)
        ids = text_array(joined.ids[part])
        yield Batch(start, views, ids, None, unseen, min(1.0, (start + rows) / len(joined.ids)))


def _categories(format: TableFormat) -> frozenset[str]:
    """Return the columns of categories."""
    return frozenset(column.name for view in format.views for column in view.columns if column.kind == "category")


def _where_present(options: TableOptions, names: Sequence[str]) -> TableOptions:
    """Return the options without the roles whose columns new rows lack; they need an id alone."""
    absent = [role for role in ROLES if role != "id" and getattr(options, role) not in names]
    return options.model_copy(update=dict.fromkeys(absent))
