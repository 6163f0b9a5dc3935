"""The report of a leaderboard: one HTML file that works offline, with its data, style and script inside."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from statistics import fmean
from string import Template
from typing import Any, NamedTuple

from fusionkit._util.files import write_atomic
from fusionkit._util.text import count_of, printable
from fusionkit.experiment.importance import ranked
from fusionkit.experiment.leaderboard import Board, Group, Table
from fusionkit.experiment.records import PARTS, limits
from fusionkit.experiment.reproduce import command

#: The most rows of a table on the screen, and points of a curve.
_SCREEN, _POINTS = 100, 200
#: Robustness is measured by the first metric of the task.
_FIRST = {"classification": "accuracy", "multilabel": "average_precision", "regression": "r2"}


class _Column(NamedTuple):
    """A column of a table.

    Attributes:
        heading: what stands above it.
        key: of the row.
        form: the format of its numbers, "" for text.
        direction: that of the first sorting: 1 rising, -1 falling.
    """

    heading: str
    key: str
    form: str = ""
    direction: int = 1


def write_report(board: Board, path: Path) -> None:
    """Write the report of ``board`` to ``path``.

    Raises:
        OSError: the file cannot be written.
    """
    places = [(table, group) for table in board.tables for group in table.groups]
    groups = [_group(i, table, group) for i, (table, group) in enumerate(places)]
    by_table = {table.name: [group for group in groups if group["table"] == table.name] for table in board.tables}
    runs = sum(len(group.runs) for group in board.groups)
    template = Template(resources.files("fusionkit.experiment").joinpath("report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(printable(f"fusionkit leaderboard: {board.directory}")),
        summary=escape(
            printable(f"{count_of(runs, 'run')} in {count_of(len(groups), 'group')} below {board.directory}")
        ),
        tables="".join(_table(table, by_table[table.name]) for table in board.tables),
        problems=_problems(board),
        data=_packed({"groups": groups}),
        screen=_SCREEN,
    )
    write_atomic(path, lambda temporary: temporary.write_bytes(page.encode(errors="xmlcharrefreplace")))


def _columns(table: Table) -> list[_Column]:
    """Return the columns of a table."""
    direction = 1 if table.less_is_better else -1
    numbers = f".{table.places}f"
    value = "Accuracy" if table.metric == "accuracy" else table.metric
    if table.part == "validation":
        metrics = [
            _Column("Validation", "validation", numbers, direction),
            _Column("SD", "validation_std", numbers),
            _Column("95 % interval", "validation_low", numbers, direction),
            _Column(f"Test {value.lower()}", "value", numbers, direction),
        ]
    else:
        metrics = [
            _Column(value, "value", numbers, direction),
            _Column("SD", "std", numbers),
            _Column("95 % interval", "low", numbers, direction),
        ]
    if table.metric != "accuracy":
        metrics.append(_Column("Accuracy", "accuracy", ".4f", -1))
    return [
        _Column("Data", "data"),
        _Column("Fusion", "fusion"),
        _Column("Fabrication", "fabrication"),
        _Column("Encoder", "encoder"),
        _Column("n", "n", "d"),
        _Column("l", "l", ",d"),
        _Column("Parameters", "parameters", ",d"),
        _Column("Runs", "runs", "d"),
        *metrics,
        _Column("Seconds", "seconds", ".1f"),
        _Column("Options", "options"),
    ]


def _table(table: Table, groups: Sequence[dict[str, Any]]) -> str:
    """Return a table with its heading and first rows; a column without any value is left out.

    Each group gets ``cells``, its texts by column.
    """
    columns = [column for column in _columns(table) if any(group[column.key] not in (None, "") for group in groups)]
    for group in groups:
        group["cells"] = [_cell(group, column) for column in columns]
    template = Template(
        """<section class="board" data-table="$name">
<h2>$heading</h2>
<div class="table" tabindex="0" role="region" aria-label="$heading">
<table>
<thead><tr><th scope="col"></th>$head</tr></thead>
<tbody>
$body</tbody>
</table>
</div>
<nav class="pages" aria-label="Rows of $heading" hidden>
<button type="button" data-step="-1">Previous</button><span role="status"></span>
<button type="button" data-step="1">Next</button>
</nav>
</section>
"""
    )
    return template.substitute(
        name=escape(table.name),
        heading=escape(table.heading),
        head="".join(
            f'<th scope="col"{" class=number" if column.form else ""} data-key="{column.key}" '
            f'data-direction="{column.direction}"><button type="button">{escape(column.heading)}</button></th>'
            for column in columns
        ),
        body="".join(_row(group, columns) for group in groups[:_SCREEN]),
    )


def _group(i: int, table: Table, group: Group) -> dict[str, Any]:
    """Return the data of a group for the page."""
    row = group.to_dict()
    del row["paths"]
    ranking, first = group.ranking, _FIRST[table.task]
    whole = group.summary("metrics", first)
    curve = f"validation_{table.metric}" if group.first.get("validation") else table.metric
    return {
        **row,
        "id": i,
        "table": table.name,
        "label": group.label,
        "encoder": group.encoder,
        "fabrication": group.runs[0].fabrication if row["fabrication"] else None,
        "ranked_by": table.ranked_by,
        "places": table.places,
        "sign": -1 if table.less_is_better else 1,
        "share": limits(table.metric) == (0.0, 1.0),
        "absent": {key: group.absent(part) for key, part in (("value", "metrics"), ("validation", "validation"))},
        "unranked": group.absent(group.part),
        "ranking": None if ranking is None else [ranking.mean, ranking.low, ranking.high],
        "curves": [
            {
                "name": f"{PARTS['validation' if group.first.get('validation') else 'metrics']} {table.metric}",
                "less": table.less_is_better,
                **_curve(group, curve),
            },
            {"name": _loss(table.task), "less": True, **_curve(group, "loss")},
        ],
        "views": _views(group),
        "weights": _weights(group),
        "importance": _importance(group),
        "views_metric": first,
        "views_whole": None if whole is None else whole.mean,
        "list": [
            {
                "seed": run.result.get("seed"),
                "value": run.value(group.part),
                "path": printable(str(run.path.parent)),
                "command": printable(command(run.result, run.path.parent) or "") or None,
            }
            for run in group.runs
        ],
    }


def _loss(task: str) -> str:
    """Return the name of the training loss: those of two tasks are not drawn together."""
    return "training loss" if task == "classification" else f"training loss, {task}"


def _curve(group: Group, key: str) -> dict[str, Any]:
    """Return the mean curve of a group: ``values``, of every ``step``-th epoch up to the last of ``epochs``; none if a
    run has none, or one with gaps or of another length.
    """
    curves = [(run.result.get("history") or {}).get(key, []) for run in group.runs]
    whole = len({len(curve) for curve in curves}) == 1 and not any(None in curve for curve in curves)
    epochs = len(curves[0]) if whole else 0
    step = max(1, -(-epochs // _POINTS))
    values = zip(*(curve[(epochs - 1) % step :: step] for curve in curves), strict=True) if epochs else ()
    return {"values": [round(fmean(one), 5) for one in values], "epochs": epochs, "step": step}


def _views(group: Group) -> dict[str, dict[str, float]]:
    """Return means of the task's first metric by disturbance (``missing``, ``only``, ``noisy``, ``noise``) and view."""
    tables = [run.result.get("robustness") or {} for run in group.runs]
    means: dict[str, dict[str, float]] = {}
    for kind in ("missing", "only", "noisy", "noise"):
        for name in tables[0].get(kind, {}):
            numbers = [table.get(kind, {}).get(name) for table in tables]
            if None not in numbers:
                means.setdefault(kind, {})[name] = round(fmean(numbers), 5)
    return means


def _weights(group: Group) -> dict[str, dict[str, float | None]]:
    """Return the mean weight of each view by class over the runs that know it; {} if one has no weights at all."""
    tables = [table for run in group.runs if (table := run.result.get("weights"))]
    if not tables or len(tables) < len(group.runs):
        return {}
    return {
        name: {view: _mean([table.get(name, {}).get(view) for table in tables]) for view in views}
        for name, views in tables[0].items()
    }


def _importance(group: Group) -> dict[str, Mapping[str, float | None]]:
    """Return what the records know of each view, means over the runs, the view that matters most first; {} if one
    record knows nothing.  A mean has no interval: that of a run covers the draws of its permutations only.
    """
    tables = [table for run in group.runs if (table := run.result.get("views"))]
    if len(tables) < len(group.runs):
        return {}

    def known(view: str, key: str) -> float | None:
        numbers = [number for table in tables if (number := table.get(view, {}).get(key)) is not None]
        return fmean(numbers) if numbers and (len(tables) == 1 or key in ("loss", "without")) else None

    return ranked({view: {key: known(view, key) for key in ("loss", "low", "high", "without")} for view in tables[0]})


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return round(fmean(known), 5) if known else None


def _cell(group: Mapping[str, Any], column: _Column) -> str:
    value = group[column.key]
    text = group["absent"].get(column.key, "") if value is None else format(value, column.form)
    if column.key.endswith("low") and text:
        text += f" – {format(group[column.key.replace('low', 'high')], column.form)}"
    return text


def _row(group: Mapping[str, Any], columns: Sequence[_Column]) -> str:
    """Return a row as it is before the script has run."""
    cells = "".join(
        f"<td{' class=number' if column.form else ''}>{escape(text).replace('_', '_<wbr>')}</td>"
        for column, text in zip(columns, group["cells"], strict=True)
    )
    return f"<tr><td></td>{cells}</tr>\n"


def _problems(board: Board) -> str:
    """Return the section about runs that are not in the table."""
    lines = [] if board.groups else ["There is no completed run."]
    lines += [line[0].upper() + line[1:] for line in board.left_out()]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section id="problems"><h2>Not in the table</h2><ul>{items}</ul></section>' if lines else ""


def _packed(value: Any) -> str:
    """Return JSON, deflated (RFC 1950) and in base64, which no name can end: ten thousand groups are 30 MB of it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return base64.b64encode(zlib.compress(text.encode(errors="backslashreplace"))).decode()
