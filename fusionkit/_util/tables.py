"""Prints tables on standard output: with rich on a terminal, elsewhere as aligned columns that are never cut."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from fusionkit._util.text import one_line


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Sequence[str] = ()) -> None:
    """Print ``rows`` under the headings ``columns``; None is an empty cell.

    Args:
        columns: the headings.
        rows: each with one cell per column.
        whole: headings of columns that are never folded on a terminal, such as names that users copy.
    """
    cells = [["" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells, whole)
    else:
        _align([list(columns), *cells])


def _align(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _draw(columns: Sequence[str], cells: Iterable[Sequence[str]], whole: Sequence[str]) -> None:
    from rich import box, console, table, text  # Slow to import, and needed on a terminal only.

    drawn = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column, no_wrap=column in whole, overflow="fold")
    for row in cells:
        drawn.add_row(*map(text.Text, row))  # Text, because rich reads brackets in a str as markup.
    console.Console().print(drawn)
