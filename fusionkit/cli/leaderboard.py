"""The command ``fusionkit leaderboard``: the runs below a directory as a table, a picture and a report."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click

from fusionkit._util.files import write_atomic
from fusionkit._util.tables import print_table
from fusionkit._util.text import printable
from fusionkit.cli.commands import json_option, output_file, print_json
from fusionkit.errors import FusionError
from fusionkit.experiment.leaderboard import Board, read_board
from fusionkit.experiment.plots import draw_leaderboard
from fusionkit.experiment.report import write_report

PICTURE = "leaderboard.png"
#: The columns of ``--csv``.
COLUMNS = (
    *("data", "fusion", "fabrication", "encoder", "n", "l", "parameters", "options", "runs", "accuracy", "std"),
    *("low", "high", "on_front", "seconds", "seeds", "paths"),
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

    Prints a table of means and standard deviations over seeds, and draws DIR/leaderboard.png, accuracy against the
    number of learnable parameters l.  Runs that cannot be used are reported.
    """
    if as_json and as_csv:
        raise click.UsageError("One of --json and --csv should be given at most; found both.")
    board = read_board(directory)
    if as_json:
        print_json(board.to_dict())
    elif as_csv:
        _print_csv(board)
    else:
        _print_table(board)
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
    if board.groups:
        picture = board.directory / PICTURE
        try:
            write_atomic(picture, lambda path: draw_leaderboard(board.points(), path))
        except OSError as error:
            raise FusionError(f"{picture} should be writable; found: {error.strerror}.") from error
        print(f"accuracy against l: {picture}", file=out)
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


def _print_table(board: Board) -> None:
    encoders = any(group.encoder for group in board.groups)
    options = any(group.options for group in board.groups)
    columns = ["data", "fusion", "fabrication", *(["encoder"] * encoders), "n", "l", "parameters", "runs", "accuracy"]
    columns += ["seconds", *(["options"] * options), "directory"]
    rows = []
    for group in board.groups:
        row = group.to_dict() | {"fabrication": group.runs[0].fabrication}
        spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
        row["accuracy"] = f"{row['accuracy']:.4f}{spread}"
        row["seconds"] = None if row["seconds"] is None else f"{row['seconds']:.1f}"
        row["directory"] = board.shown_directory(group)
        rows.append([row[column] for column in columns])
    if rows:
        print_table(columns, rows, whole=("fusion", "accuracy"))
