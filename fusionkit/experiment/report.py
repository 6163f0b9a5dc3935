"""The report of a leaderboard: one HTML file that works offline, with its data, style and script inside."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from fusionkit.experiment.leaderboard import Board, Group
from fusionkit.experiment.reproduce import Commands
from fusionkit.experiment.results import write_atomic

__all__ = ["write_report"]

#: Heading, key of the row, whether it is a number.  A column without any value is not shown.
_COLUMNS = (
    ("Data", "data", False),
    ("Fusion", "fusion", False),
    ("Fabrication", "fabrication", False),
    ("Encoder", "encoder", False),
    ("n", "n", True),
    ("l", "l", True),
    ("Parameters", "parameters", True),
    ("Runs", "runs", True),
    ("Accuracy", "accuracy", True),
    ("SD", "std", True),
    ("95 % interval", "low", True),
    ("Seconds", "seconds", True),
    ("Options", "options", False),
)


def write_report(board: Board, directory: Path, path: Path) -> None:
    """Write the report of ``board``, which was read from ``directory``, to ``path``.

    Raises:
        OSError: the file cannot be written.
    """
    commands = Commands()
    groups = [_group(i, group, commands) for i, group in enumerate(board.groups)]
    columns = [
        column for column in _COLUMNS if not groups or any(group[column[1]] not in (None, "") for group in groups)
    ]
    runs = sum(len(group.runs) for group in board.groups)
    template = Template(resources.files("fusionkit.experiment").joinpath("report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(f"fusionkit leaderboard: {directory}"),
        summary=escape(f"{_count(runs, 'run')} in {_count(len(groups), 'group')} below {directory}"),
        head="".join(
            f'<th scope="col"{" class=number" if number else ""} data-key="{key}">'
            f'<button type="button">{escape(heading)}</button></th>'
            for heading, key, number in columns
        ),
        body="".join(_row(group, columns) for group in groups),
        problems=_problems(board),
        data=_embed({"groups": groups}),
    )
    write_atomic(path, lambda temporary: temporary.write_bytes(page.encode(errors="xmlcharrefreplace")))


def _group(i: int, group: Group, commands: Commands) -> dict[str, Any]:
    """Return what the page knows about a group."""
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
                "path": str(run.path.parent),
                "command": commands.command(run.result, run.path.parent),
            }
            for run in group.runs
        ],
    }


def _curve(group: Group, key: str) -> list[float]:
    """Return the mean curve of a group by epoch; none if its runs do not have one of one length."""
    found = [_mapping(run.result.get("history")).get(key) for run in group.runs]
    curves = [curve for curve in found if isinstance(curve, list) and curve and all(map(_is_number, curve))]
    if len(curves) < len(found) or len({len(curve) for curve in curves}) != 1:
        return []
    return [round(sum(values) / len(values), 5) for values in zip(*curves, strict=True)]


def _views(group: Group) -> dict[str, dict[str, float]]:
    """Return mean accuracies by kind of disturbance and view (``missing``, ``only``, ``noisy``, ``noise``)."""
    found = [_mapping(run.result.get("robustness")) for run in group.runs]
    means: dict[str, dict[str, float]] = {}
    for kind in ("missing", "only", "noisy", "noise"):
        tables = [_mapping(one.get(kind)) for one in found]
        for name in tables[0]:
            numbers = [float(table[name]) for table in tables if _is_number(table.get(name))]
            if len(numbers) == len(tables):
                means.setdefault(kind, {})[str(name)] = round(sum(numbers) / len(numbers), 5)
    return means


def _row(group: Mapping[str, Any], columns: Sequence[tuple[str, str, bool]]) -> str:
    cells = []
    for _, key, number in columns:
        value = group[key]
        if key in ("accuracy", "std") and value is not None:
            text = f"{value:.4f}"
        elif key == "low" and value is not None:
            text = f"{value:.4f} – {group['high']:.4f}"
        elif key == "seconds" and value is not None:
            text = f"{value:.1f}"
        elif key in ("l", "parameters") and isinstance(value, int):
            text = f"{value:,}"
        else:
            text = "" if value is None else str(value)
        mark = ' <span class="front" title="on the Pareto front">◆</span>' if key == "l" and group["on_front"] else ""
        cells.append(f"<td{' class=number' if number else ''}>{escape(text).replace('_', '_<wbr>')}{mark}</td>")
    label = escape(f"show {group['label']} on {group['data']}", quote=True)
    return f'<tr data-id="{group["id"]}"><td><input type="checkbox" aria-label="{label}"></td>{"".join(cells)}</tr>\n'


def _problems(board: Board) -> str:
    """Return the section about what is not in the table."""
    lines = [line[0].upper() + line[1:] for line in board.left_out()]
    if not board.groups:
        lines.insert(0, "There is no completed run.")
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section id="problems"><h2>Not in the table</h2><ul>{items}</ul></section>'


def _embed(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
