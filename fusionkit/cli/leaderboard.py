"""The command ``fusionkit leaderboard``: the runs below a directory as a table, a picture and a report."""

from __future__ import annotations

import csv
import gc
import sys
from pathlib import Path
from typing import Any

import click

from fusionkit._util.files import write_atomic
from fusionkit._util.tables import print_table
from fusionkit._util.text import printable
from fusionkit.cli.commands import json_option, output_file, print_json
from fusionkit.errors import FusionError
from fusionkit.experiment.leaderboard import Board, Group, Table, read_board
from fusionkit.experiment.plots import draw_leaderboard
from fusionkit.experiment.report import write_report

PICTURE = "leaderboard.png"
#: The columns of ``--csv``.
COLUMNS = (
    *("data", "task", "metric", "fusion", "fabrication", "encoder", "n", "l", "parameters", "options", "runs"),
    *("accuracy", "value", "std", "low", "high"),
    *("validation", "validation_std", "validation_low", "validation_high", "ranked_by"),
    *("on_front", "seconds", "seeds", "paths"),
)
EPILOG = """\b
Examples:
  fusionkit run -m fabrication=dense,lowrank seed=0,1,2
  fusionkit leaderboard multirun
  fusionkit leaderboard multirun --html report.html
  fusionkit leaderboard multirun --csv > table.csv"""


@click.command(epilog=EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--html", "html_file", callback=output_file, metavar="FILE", help="Write a report for the browser.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of the table.")
def leaderboard(directory: Path, html_file: Path | None, as_json: bool, as_csv: bool) -> int:
    """Compare the runs below a directory, at any depth.

    Prints a table of means and standard deviations over seeds or folds for each data set, task and metric, and draws
    DIR/leaderboard.png, the metric against the number of learnable parameters l.  The validation part ranks where every
    run of a table has one, else the test part.  Runs that cannot be used are reported.  What was read stays in
    DIR/.leaderboard.json for the next call; the file may be deleted.
    """
    if as_json and as_csv:
        raise click.UsageError("One of --json and --csv should be given at most; found both.")
    gc.disable()  # A third of the time would go into searching the records for garbage, of which there is none.
    try:
        return _compare(directory, html_file, as_json, as_csv)
    finally:
        gc.enable()


def _compare(directory: Path, html_file: Path | None, as_json: bool, as_csv: bool) -> int:
    """Print and write what was asked for; return the exit status."""
    board = read_board(directory)
    if as_json:
        print_json(board.to_dict())
    elif as_csv:
        _print_csv(board)
    else:
        _print_tables(board)
    for line in board.left_out():
        print(line, file=sys.stderr)
    _write(board, html_file, quiet=as_json or as_csv)
    if not board.groups:
        counts = {"failed": len(board.failed), "unfinished": len(board.unfinished), "unusable": len(board.problems)}
        found = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none"
        print(f"error: {directory} should contain a completed run; found {found}.", file=sys.stderr)
    return 0 if board.groups else 1


def _write(board: Board, html_file: Path | None, *, quiet: bool) -> None:
    """Draw the picture, write the report, and print their paths."""
    out = sys.stderr if quiet else sys.stdout
    if points := board.points():
        picture = board.directory / PICTURE
        try:
            write_atomic(picture, lambda path: draw_leaderboard(points, path))
        except OSError as error:
            raise FusionError(f"{picture} should be writable; found: {error.strerror}.") from error
        metrics = ", ".join(sorted({table.metric for table in board.tables}))
        print(f"{metrics} against l: {picture}", file=out)
    if html_file is not None:
        try:
            write_report(board, html_file)
        except OSError as error:
            raise FusionError(f"--html should be a file to write to; found {html_file}: {error.strerror}.") from error
        print(f"report: {html_file}", file=out)


def _print_csv(board: Board) -> None:
    """Print the rows of ``--json``; lists are joined by semicolons, None is an empty cell."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for group in board.groups:
        row = group.to_dict()
        cells = (";".join(map(str, row[key])) if isinstance(row[key], list) else row[key] for key in COLUMNS)
        writer.writerow(printable(cell) if isinstance(cell, str) else cell for cell in cells)


def _print_tables(board: Board) -> None:
    for i, table in enumerate(board.tables):
        if i:
            print()
        print(table.heading)
        _print_table(board, table)


def _print_table(board: Board, table: Table) -> None:
    rows = [_cells(board, table, group) for group in table.groups]
    metrics = ["validation"] * (table.part == "validation") + [table.metric]
    optional = {key: any(row[key] for row in rows) for key in ("encoder", "options", "accuracy")}
    columns = ["data", "fusion", "fabrication", *(["encoder"] * optional["encoder"]), "n", "l", "parameters", "runs"]
    columns += [*metrics, *(["accuracy"] * (optional["accuracy"] and table.metric != "accuracy")), "seconds"]
    columns += [*(["options"] * optional["options"]), "directory"]
    print_table(columns, ([row[column] for column in columns] for row in rows), whole=("fusion", *metrics))


def _cells(board: Board, table: Table, group: Group) -> dict[str, Any]:
    """Return the cells of a row by column."""
    row = group.to_dict()
    return {
        **row,
        "encoder": group.encoder,
        "fabrication": group.runs[0].fabrication,
        "accuracy": None if row["accuracy"] is None else f"{row['accuracy']:.4f}",
        "validation": _mean(group, "validation", table.places),
        table.metric: _mean(group, "metrics", table.places),
        "seconds": None if row["seconds"] is None else f"{row['seconds']:.1f}",
        "directory": board.shown_directory(group),
    }


def _mean(group: Group, part: str, places: int) -> str:
    """Return mean and deviation of the metric that ranks, or why there is none."""
    if (found := group.summary(part)) is None:
        return group.absent(part)
    return f"{found.mean:.{places}f}" + ("" if found.std is None else f" ± {found.std:.{places}f}")
