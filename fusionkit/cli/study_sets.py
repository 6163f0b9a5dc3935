"""What ``fusionkit study --sets`` does: the default, further configs and references on every data set that is there."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionkit import registry
from fusionkit._util.files import write_json, write_text
from fusionkit._util.tables import print_table
from fusionkit.cli.commands import print_json
from fusionkit.errors import ConfigError
from fusionkit.experiment.results import provenance
from fusionkit.study.plan import Settings, Study
from fusionkit.study.sets import REFERENCES, analyse_sets, plan_sets

SCHEMA_VERSION = 1
FILE = "sets"


def run_sets(directory: Path, settings: Settings, execute: Any, arguments: Sequence[str], *, as_json: bool) -> int:
    """Make the table of data sets and print it; return the exit status.

    Args:
        directory: of the study.
        settings: its settings; no names of data sets stand for all that are registered.
        execute: does the jobs of a study, and returns a sentence for each failed one.
        arguments: of ``fusionkit``, for the summary.
        as_json: print JSON.
    """
    begun = time.perf_counter()
    names = settings["data"] or [record.key for record in registry.records("dataset")]
    settings["data"] = names
    planned, about = plan_sets(directory, **settings)
    begin(planned)
    failed: list[str] = execute(planned)
    rows = analyse_sets(planned, about)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "command": f"fusionkit {shlex.join(arguments)}",
        "settings": dict(planned.settings),
        "seconds": round(time.perf_counter() - begun, 1),
        "trainings": len(planned.jobs),
        "failed": failed,
        "left_out": planned.left_out,
        "provenance": provenance({}),
        "sets": rows,
    }
    _write(planned, summary)
    if as_json:
        print_json(summary)
    else:
        if table := _table(rows):
            print_table(list(table[0]), [list(line.values()) for line in table])
        print(f"files  {directory / FILE}.json\n       {directory / FILE}.md")
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def begin(study: Study) -> None:
    """Make the directory of a study, and say what it leaves out.

    Raises:
        ConfigError: it cannot be made.
    """
    directory = study.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out should be a directory to write to; found {directory}: {error.strerror}.") from error
    for sentence in study.left_out:
        print(f"left out: {sentence}", file=sys.stderr)


def _write(planned: Study, summary: Mapping[str, Any]) -> None:
    write_json(planned.directory / f"{FILE}.json", summary)
    text = f"{sets_markdown(summary['sets'])}\nMade by `{summary['command']}`.\n"
    write_text(planned.directory / f"{FILE}.md", text)


def sets_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of data sets as Markdown."""
    table = _table(rows)
    if not table:
        return "### Data sets\n"
    configs = _configs(rows)
    columns = [f"`{column}`" if column in configs and column != "default" else column for column in table[0]]
    lines = ["### Data sets", "", f"| {' | '.join(columns)} |", "|---|---|---:|---|---|" + "---:|" * (len(columns) - 5)]
    return "\n".join([*lines, *(f"| {' | '.join(line.values())} |" for line in table), ""])


def _table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return each row as text, by the heading of the column; a contestant that was left out is empty."""
    configs, table = _configs(rows), []
    for row in rows:
        found = {one["name"]: _cell(one) for one in row["results"]}
        linear, kernel = REFERENCES[row["task"]]
        widths = list(row["views"].values())
        same = f"{len(widths)} of {widths[0]}" if len(set(widths)) == 1 else " + ".join(map(str, widths))
        table.append(
            {
                "data": row["data"],
                "metric": row["metric"],
                "rows": str(row["rows"]),
                "views": same,
                "test part": row["test"],
                **{name: found.get(name, "") for name in configs},
                "linear": found.get(linear, ""),
                "RBF SVM": found.get(kernel, ""),
            }
        )
    return table


def _configs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the default and of the configs of ``--add``."""
    return list(dict.fromkeys(one["name"] for row in rows for one in row["results"] if not one["baseline"]))


def _cell(result: Mapping[str, Any]) -> str:
    """Return mean and standard deviation."""
    deviation = "" if result["std"] is None else f" ± {result['std']:.4f}"
    return f"{result['mean']:.4f}{deviation}"
