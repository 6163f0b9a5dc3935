"""The picture: time of the forward pass against the rows, one small panel per operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from fusionkit.bench.cases import label
from fusionkit.bench.measure import Row

COLUMNS = 4
#: The operator itself and the references that are drawn: label and style of the line.
LINES = (
    ("limit", "limit", {"color": "#a0aec0", "linestyle": ":"}),
    ("cat_linear", "cat + linear", {"color": "#718096", "linestyle": "--"}),
    ("built", "W built, or views stacked", {"color": "#c05621", "marker": "s"}),
    ("library", "tinybig", {"color": "#805ad5", "marker": "^"}),
    ("own", "fusionkit", {"color": "#2b6cb0", "marker": "o"}),
)


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Draw to a PNG file; return False, and draw nothing, if no operator was measured at two numbers of rows.

    Args:
        rows: the forward rows are shown, of each operator at the size that was measured with the most values of m.
        path: the file.
    """
    panels = {name: chosen for name, chosen in _panels(rows).items() if len(chosen) > 1}
    if not panels:
        return False
    columns = min(COLUMNS, len(panels))
    height = -(-len(panels) // columns)
    across = min(len(LINES), columns)  # As many entries of the legend fit into one line.
    above = 0.25 * -(-len(LINES) // across)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.2 * height + 0.5 + above), dpi=110, layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, chosen) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, name, chosen)
    handles = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=across, fontsize=11, frameon=False
    )
    figure.supxlabel("rows m", fontsize=12)
    figure.supylabel("forward, ms", fontsize=12)
    figure.savefig(path, format="png")
    return True


def _panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    sizes: dict[str, dict[tuple[object, ...], list[Row]]] = {}
    for row in rows:
        if row.mode == "forward":
            key = (tuple(row.dims), row.n, row.dtype, row.positive)
            sizes.setdefault(label(row.name, row.options), {}).setdefault(key, []).append(row)
    most = {name: max(groups.values(), key=len) for name, groups in sizes.items()}
    return {name: sorted(group, key=lambda row: row.m) for name, group in most.items()}


def _panel(axes: Axes, title: str, rows: Sequence[Row]) -> None:
    for name, text, style in LINES:
        ratios = [(row, 1.0 if name == "own" else row.ratios[name]) for row in rows]
        points = [(row.m, row.milliseconds / ratio) for row, ratio in ratios if ratio]
        if points:
            axes.plot(*zip(*points, strict=True), label=text, linewidth=1.4, markersize=4, **style)  # type: ignore[arg-type]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([row.m for row in rows]))
    low, high = axes.get_ylim()
    # Within less than two decades powers of ten alone would be one label or none.
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(fill(title.replace("_", "_ "), 24).replace("_ ", "_"), fontsize=11, loc="left")
    axes.tick_params(labelsize=10)
    axes.grid(alpha=0.25)
