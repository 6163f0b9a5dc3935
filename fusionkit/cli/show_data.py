"""``fusionkit show data=NAME ...``: what a run would read, without a training."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from fusionkit._util.tables import print_table
from fusionkit._util.text import one_line
from fusionkit.cli.commands import print_json, wrong_usage
from fusionkit.config.composition import compose
from fusionkit.config.options import validate
from fusionkit.experiment.data import Dataset
from fusionkit.experiment.run import read
from fusionkit.experiment.summary import print_data

#: Names of columns and categories that are shown of each view and column.
_SHOWN = 20


def show_data(overrides: Sequence[str], as_json: bool) -> None:
    """Print rows, views with their columns, what is left out, the task and the parts.

    Raises:
        ConfigError, FusionError: as a run would.
    """
    with wrong_usage():
        config = validate(compose(overrides))
    data, parts = read(config)
    if as_json:
        print_json(
            {
                **data.describe(),
                "dims": data.dims,
                "task": data.task.name,
                "reason": data.reason,
                "metric": data.task.metric(config.metric),
                "targets": data.task.targets or None,
                "columns": {name: list(_columns(data, name)) for name in data.views},
                "parts": {name: len(rows) for name, rows in parts.named().items()},
                "notes": [*data.notes, *parts.notes],
            }
        )
        return
    print_data(data, parts, sys.stdout)
    print_table(
        ("view", "width", "absent", "columns"),
        [
            (name, width, _absent(data, i), _some(list(_columns(data, name))))
            for i, (name, width) in enumerate(zip(data.views, data.dims, strict=True))
        ],
    )


def _columns(data: Dataset, view: str) -> Iterator[str]:
    """Yield the columns of a view of a table, with their categories."""
    views = {one.name: one.columns for one in data.table.views} if data.table is not None else {}
    for column in views.get(view, ()):
        categories = f" ({_some(column.categories)})" if column.categories else ""
        yield f"{column.name}{' (true, false)' if column.kind == 'boolean' else categories}"


def _some(names: Sequence[Any]) -> str:
    more = f", ... {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(one_line(str(name), 60) for name in names[:_SHOWN]) + more


def _absent(data: Dataset, i: int) -> str | None:
    return None if data.mask is None else f"{int((~data.mask[:, i]).sum())} rows"
