"""The report of a leaderboard: one HTML file that works offline, with its data, style and script inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from statistics import fmean
from string import Template
from typing import Any

from fusionkit._util.files import write_atomic
from fusionkit._util.text import count_of, printable
from fusionkit.experiment.leaderboard import Board, Group
from fusionkit.experiment.reproduce import command

#: Heading, key of the row, format of its numbers ("" for text).  A column without any value is not shown.
_COLUMNS = (
    ("Data", "data", ""),
    ("Fusion", "fusion", ""),
    ("Fabrication", "fabrication", ""),
    ("Encoder", "encoder", ""),
    ("n", "n", "d"),
    ("l", "l", ",d"),
    ("Parameters", "parameters", ",d"),
    ("Runs", "runs", "d"),
    ("Accuracy", "accuracy", ".4f"),
    ("SD", "std", ".4f"),
    ("95 % interval", "low", ".4f"),
    ("Seconds", "seconds", ".1f"),
    ("Options", "options", ""),
)


def write_report(board: Board, path: Path) -> None:
    """Write the report of ``board`` to ``path``.

    Raises:
        OSError: the file cannot be written.
    """
    groups = [_group(i, group) for i, group in enumerate(board.groups)]
    columns = [
        column for column in _COLUMNS if not groups or any(group[column[1]] not in (None, "") for group in groups)
    ]
    runs = sum(len(group.runs) for group in board.groups)
    template = Template(resources.files("fusionkit.experiment").joinpath("report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(printable(f"fusionkit leaderboard: {board.directory}")),
        summary=escape(
            printable(f"{count_of(runs, 'run')} in {count_of(len(groups), 'group')} below {board.directory}")
        ),
        head="".join(
            f'<th scope="col"{" class=number" if form else ""} data-key="{key}">'
            f'<button type="button">{escape(heading)}</button></th>'
            for heading, key, form in columns
        ),
        body="".join(_row(group, columns) for group in groups),
        problems=_problems(board),
        data=_embed({"groups": groups}),
    )
    write_atomic(path, lambda temporary: temporary.write_bytes(page.encode(errors="xmlcharrefreplace")))


def _group(i: int, group: Group) -> dict[str, Any]:
    """Return the data of a group for the page."""
    row = group.to_dict()
    del row["paths"]
    return {
        **row,
        "id": i,
        "label": group.label,
        "encoder": group.encoder,
        "fabrication": group.runs[0].fabrication if row["fabrication"] else None,
        "curves": {key: _curve(group, key) for key in ("accuracy", "loss")},
        "views": _views(group),
        "list": [
            {
                "seed": run.result.get("seed"),
                "accuracy": run.accuracy,
                "path": printable(str(run.path.parent)),
                "command": printable(command(run.result, run.path.parent) or "") or None,
            }
            for run in group.runs
        ],
    }


def _curve(group: Group, key: str) -> list[float]:
    """Return the mean curve of a group by epoch; [] if a run has none, or one with gaps or of another length."""
    curves = [(run.result.get("history") or {}).get(key, []) for run in group.runs]
    if len({len(curve) for curve in curves}) > 1 or any(None in curve for curve in curves):
        return []
    return [round(fmean(values), 5) for values in zip(*curves, strict=True)]


def _views(group: Group) -> dict[str, dict[str, float]]:
    """Return mean accuracies by kind of disturbance and view (``missing``, ``only``, ``noisy``, ``noise``)."""
    tables = [run.result.get("robustness") or {} for run in group.runs]
    means: dict[str, dict[str, float]] = {}
    for kind in ("missing", "only", "noisy", "noise"):
        for name in tables[0].get(kind, {}):
            numbers = [table.get(kind, {}).get(name) for table in tables]
            if None not in numbers:
                means.setdefault(kind, {})[name] = round(fmean(numbers), 5)
    return means


def _row(group: Mapping[str, Any], columns: Sequence[tuple[str, str, str]]) -> str:
    cells = []
    for _, key, form in columns:
        value = group[key]
        text = "" if value is None else format(value, form)
        if key == "low" and text:
            text += f" – {group['high']:.4f}"
        mark = ' <span class="front" title="on the Pareto front">◆</span>' if key == "l" and group["on_front"] else ""
        cells.append(f"<td{' class=number' if form else ''}>{escape(text).replace('_', '_<wbr>')}{mark}</td>")
    label = escape(f"show {group['label']} on {group['data']}", quote=True)
    return f'<tr data-id="{group["id"]}"><td><input type="checkbox" aria-label="{label}"></td>{"".join(cells)}</tr>\n'


def _problems(board: Board) -> str:
    """Return the section about runs that are not in the table."""
    lines = [] if board.groups else ["There is no completed run."]
    lines += [line[0].upper() + line[1:] for line in board.left_out()]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section id="problems"><h2>Not in the table</h2><ul>{items}</ul></section>' if lines else ""


def _embed(value: Any) -> str:
    """Return JSON that cannot end the script element around it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
