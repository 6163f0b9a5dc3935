"""The pictures: of one run, and of many (accuracy against l).  Drawn with Agg, without pyplot's global state."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusionkit._util.text import one_line

_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "#718096"
_CYCLE = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#b7791f", "#319795", "#4a5568")
_MARKERS = "osD^vPX*<>"
#: How many points of a panel the legend names.
_NAMED = 24
#: Where a legend lies beside its axes.
_OUTSIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}


def draw_leaderboard(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the metric that ranks against l, one panel per table, to a PNG file; the better, the higher.

    Args:
        points: of ``Board.points``: ``table``, ``label``, ``l``, ``mean``, ``std``, ``ranked_by``, ``less_is_better``,
            ``places``.
        path: the file.
    """
    tables = list(dict.fromkeys(point["table"] for point in points))
    looks = _looks(point["label"] for point in points)
    with _figure(path, 9.5, 4.6 * len(tables)) as figure:
        panels = figure.subplots(len(tables), 1, squeeze=False)[:, 0]
        for axes, table in zip(panels, tables, strict=True):
            mine = [point for point in points if point["table"] == table]
            # An entry of the legend has points of its own; the others are drawn together where they look alike.
            for point in mine[:_NAMED]:
                mean = f"{point['mean']:.{point['places']}f}"
                _points(axes, [point], looks[point["label"]], f"{one_line(point['label'], 100)}  {mean}")
            alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
            for point in mine[_NAMED:]:
                alike.setdefault(tuple(looks[point["label"]].values()), []).append(point)
            for some in alike.values():
                _points(axes, some, looks[some[0]["label"]])
            _l_axis(axes, [point["l"] for point in mine])
            notes = ["less is better"] if mine[0]["less_is_better"] else []
            notes += ["mean ± std over seeds or folds"] if any(point["std"] is not None for point in mine) else []
            axes.set_ylabel(mine[0]["ranked_by"] + (f" ({', '.join(notes)})" if notes else ""))
            if mine[0]["less_is_better"]:
                axes.invert_yaxis()
            axes.set_title(one_line(table, 100))
            axes.legend(**_OUTSIDE)


def _points(axes: Axes, points: Sequence[Mapping[str, Any]], look: Mapping[str, str], label: str | None = None) -> None:
    """Draw points of one look, with their deviations where they have any."""
    style: dict[str, Any] = dict(look, linestyle="", markersize=7, capsize=3, elinewidth=1)
    x, y = ([point[key] for point in points] for key in ("l", "mean"))
    deviations = [point["std"] or math.nan for point in points]
    error = None if all(map(math.isnan, deviations)) else deviations
    axes.errorbar(x, y, yerr=error, label=label, **style)


def draw_study(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a study's accuracy against l, a panel per data set, to a PNG file: fronts, 95 % intervals, references.

    Args:
        rows: of ``fusionkit.study.analysis.analyse``.
        path: the file.
    """
    sets = list(dict.fromkeys(row["data"] for row in rows))
    looks = _looks(_kind(row) for row in rows if row["l"] is not None)
    with _figure(path, 6.2 * len(sets), 7.0) as figure:
        panels = figure.subplots(1, len(sets), squeeze=False)[0]
        shown: dict[str, Any] = {}
        for axes, data in zip(panels, sets, strict=True):
            _study_panel(axes, [row for row in rows if row["data"] == data], looks, shown)
            axes.set_title(data, fontsize=12)
        panels[0].set_ylabel("test accuracy, mean and 95 % interval")
        # By name, the lines last; few columns, because the names are long.
        names = [*sorted(shown.keys() & looks.keys()), *(name for name in shown if name not in looks)]
        handles = [shown[name] for name in names]
        figure.legend(handles, names, loc="outside lower center", ncols=2 * len(sets), fontsize=10)


def _study_panel(
    axes: Axes, rows: Sequence[Mapping[str, Any]], looks: Mapping[str, Mapping[str, str]], shown: dict[str, Any]
) -> None:
    """Draw the contestants of one data set; ``shown`` collects the entries of the legend by name."""
    fusions = [row for row in rows if row["l"] is not None]
    for row in fusions:
        style: dict[str, Any] = dict(looks[_kind(row)], linestyle="", markersize=6.5, elinewidth=0.7)
        if row["encoder"] not in (None, "none"):  # Encoders have parameters too, which l does not count: hollow.
            style["markerfacecolor"] = "white"
        error = None if row["low"] is None else [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        drawn = axes.errorbar(row["l"], row["mean"], yerr=error, alpha=0.9, zorder=3, **style)
        shown.setdefault(_kind(row), drawn)
    front = sorted((row["l"], row["mean"]) for row in fusions if row["on_front"])
    (line,) = axes.step([x for x, _ in front], [y for _, y in front], where="post", color=_GREY, lw=1.2, zorder=1)
    shown.setdefault("Pareto front", line)
    references = sorted((row for row in rows if row["baseline"]), key=lambda row: str(row["name"]))
    for row, dashes in zip(references, ((6, 2), (1.5, 1.5)), strict=False):
        line = axes.axhline(row["mean"], color="black", linewidth=1, dashes=dashes, zorder=0)
        shown.setdefault(row["name"].replace("_", " "), line)
    _l_axis(axes, [row["l"] for row in fusions] or [0])
    # The worst contestants are cut off: they would squeeze the others together.
    means = sorted(row["mean"] for row in rows)
    middle, best = means[len(means) // 3], means[-1]
    least = max(0.0, min(middle, best - 0.01) - 1.5 * (best - middle) - 0.01)
    axes.set_ylim(least, min(1.002, best + 0.02))
    if below := sum(mean < least for mean in means):
        axes.set_title(f"{below} below the picture", loc="right", fontsize=9, color=_GREY, fontweight="normal")


def draw_robustness(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a study's accuracy with each view missing and with noise on all views to a PNG file, two panels per set.

    The dense concatenation, the references and the best of the small contestants are shown.

    Args:
        rows: of ``fusionkit.study.analysis.analyse``.
        path: the file.
    """
    sets = list(dict.fromkeys(row["data"] for row in rows))
    looks = _looks(_kind(row) for row in rows if row["l"] is not None)
    greys = {"color": "black", "markerfacecolor": "white"}
    with _figure(path, 12.5, 3.7 * len(sets)) as figure:
        for pair, data in zip(figure.subplots(len(sets), 2, squeeze=False), sets, strict=True):
            chosen = _chosen([row for row in rows if row["data"] == data])
            for i, row in enumerate(chosen):
                missing, noise = row["robustness"]["missing"], row["robustness"]["noise"]
                # The colours of the other picture; the references are its black lines.
                style: dict[str, Any] = dict(greys if row["baseline"] else looks[_kind(row)])
                style["marker"] = _MARKERS[i % len(_MARKERS)]
                label = row["name"] + ("" if row["l"] is None else f"  (l = {row['l']:,})")
                places = [place + 0.09 * (i - (len(chosen) - 1) / 2) for place in range(len(missing) + 1)]
                pair[0].plot(places, [row["mean"], *missing.values()], linestyle="", **style)
                pair[1].plot([0.0, *map(float, noise)], [row["mean"], *noise.values()], label=label, **style)
                pair[0].set_xticks(range(len(missing) + 1), ["none", *missing])
            pair[0].set_title(f"{data}: one view missing")
            pair[1].set_title(f"{data}: noise on all views")
            pair[1].set_xlabel("standard deviation of the noise, on standardized views")
            pair[0].set_ylabel("test accuracy")
            pair[1].legend(**_OUTSIDE)


def draw_missing(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a study's accuracy by the rate of missing views to a PNG file, a row of two panels per data set: without
    and with view dropout.

    Args:
        rows: of ``fusionkit.study.analysis.analyse_missing``.
        path: the file.
    """
    sets = list(dict.fromkeys(row["data"] for row in rows))
    looks = _looks(row["name"] for row in rows if not row["baseline"])
    with _figure(path, 12.5, 4.3 * len(sets)) as figure:
        grid = figure.subplots(len(sets), 2, squeeze=False, sharex=True, sharey="row")
        for pair, data in zip(grid, sets, strict=True):
            for i, row in enumerate(row for row in rows if row["data"] == data):
                style: dict[str, Any] = dict(looks.get(row["name"], {"color": "black", "linestyle": ":"}))
                style.setdefault("marker", _MARKERS[i % len(_MARKERS)])
                for axes, key in zip(pair, ("without", "with"), strict=True):
                    # The baselines have no view dropout; in the second panel they are there to compare with.
                    found = row["without" if row["baseline"] else key]
                    points = [(float(rate), one["mean"]) for rate, one in found.items() if one is not None]
                    x, y = [at for at, _ in points], [mean for _, mean in points]
                    label = row["name"].replace("_", " ") if row["baseline"] else row["name"]
                    axes.plot(x, y, label=label, linewidth=1.2, markersize=5.5, **style)
            # The worst curve may leave the picture: it would squeeze the others together.
            lows = sorted(
                min(one["mean"] for one in row["without"].values() if one) for row in rows if row["data"] == data
            )
            pair[0].set_ylim(bottom=max(0.0, lows[min(1, len(lows) - 1)] - 0.02))
            pair[0].set_title(f"{data}: without view dropout")
            pair[1].set_title(f"{data}: with view dropout (baselines without)")
            pair[0].set_ylabel("test accuracy")
            pair[1].legend(**_OUTSIDE)
        for axes in grid[-1]:
            axes.set_xlabel("rate of missing views, one being kept")


def _looks(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return colour and marker of each name, the same in all panels."""
    colours, markers = len(_CYCLE), len(_MARKERS)
    return {
        name: {"color": _CYCLE[i % colours], "marker": _MARKERS[(i + i // colours) % markers]}
        for i, name in enumerate(sorted(set(names)))
    }


def _l_axis(axes: Axes, sizes: Sequence[int]) -> None:
    """Set up the axis of l: logarithmic, with a place for 0, and with a mark or more in any range."""
    least, greatest = min(sizes), max(sizes)
    if greatest > 100:
        axes.set_xscale("symlog", linthresh=10, linscale=0.5)
        low, high = 0.8 * least if least else -1, 2 * greatest
        for steps in ((1,), (1, 2, 5), range(1, 10)):
            marks = [step * 10**k for k in range(len(str(high))) for step in steps if low <= step * 10**k <= high]
            marks = [0, *(mark for mark in marks if mark >= 10)] if not least else marks
            if len(marks) > 3:
                break
        axes.set_xticks(marks, [f"{mark:,}" for mark in marks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(low, high)
    axes.set_xlabel("l, learnable parameters of the fusion")


def _kind(row: Mapping[str, Any]) -> str:
    """Return the name that has its own colour and marker in the picture of a study."""
    return str(row["fabrication"] or row["fusion"])


def _chosen(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows whose robustness is drawn: dense, references, the best with l <= 1, 2.5 and 10 % of dense."""
    chosen = [row for row in rows if row["fabrication"] == "dense"]
    chosen += sorted((row for row in rows if row["baseline"]), key=lambda row: str(row["name"]))
    bare = [row for row in rows if row["encoder"] in (None, "none") and row["share_of_dense"]]
    for limit in (0.01, 0.025, 0.1):
        small = [row for row in bare if row["share_of_dense"] <= limit]
        best = max(small, key=lambda row: float(row["mean"]), default=None)
        if best is not None and best not in chosen:
            chosen.append(best)
    return chosen


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of this size, in inches, and save it to ``path`` as PNG in the end."""
    style: dict[Any, Any] = {
        "text.parse_math": False,  # Names may contain dollar signs.
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _GREY,
        "axes.grid": True,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "font.size": 10,
        "font.family": "DejaVu Sans",
    }
    # Pictures do not depend on the user's own matplotlib style.  (rcdefaults would read all style files.)
    defaults = {key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")}
    with warnings.catch_warnings(), rc_context({**defaults, **style}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
        yield figure
        figure.savefig(path, format="png")
