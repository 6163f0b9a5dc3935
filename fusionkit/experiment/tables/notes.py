"""Lines about what a user may not expect in the cells of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fusionkit._util.text import short_repr
from fusionkit.experiment.tables.columns import Floats, quoted
from fusionkit.experiment.tables.format import TableFormat


def cell_notes(format: TableFormat, views: Mapping[str, Floats]) -> Iterator[str]:
    """Yield lines about cells that are missing where their view is not, and about columns that number the rows.

    Args:
        format: of the table.
        views: as they were encoded with it.
    """
    missing: dict[str, dict[str, int]] = {"category": {}, "number": {}}
    numbering = []
    for view in format.views:
        array = views[view.name]
        present = ~np.isnan(array).all(1)
        for column, part in view.parts():
            cells, kind = array[:, part], "category" if column.categories else "number"
            empty = np.isnan(cells[:, 0]) if kind == "number" else ~cells.any(1)
            if count := int((empty & present).sum()):
                missing[kind][column.name] = count
            if kind == "number" and len(cells) > 2 and (np.diff(cells[:, 0]) == 1).all():
                numbering.append(column.name)
    whats = {"category": "Missing text counts as no category", "number": "Means stand for missing numbers"}
    for kind, what in whats.items():
        if counts := [f"{count} in {short_repr(name)}" for name, count in missing[kind].items()]:
            yield f"{what}: {', '.join(counts)}."
    for name in numbering:
        use = f"data.id={quoted(name)} takes it as their name, data.drop={quoted(name)} leaves it out"
        yield f"Column {name!r} numbers the rows and is an input; {use}."
