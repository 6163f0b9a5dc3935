"""The pictures of one run: its curves, what its test part shows, by task, and how much each view counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from fusionkit._util.files import write_atomic
from fusionkit._util.text import one_line
from fusionkit.experiment.importance import DRAWS, ranked, worse
from fusionkit.experiment.metrics import calibration_bins, numeral, places, rank_value
from fusionkit.experiment.plots import _BLUE, _GREY, _ORANGE, _figure
from fusionkit.experiment.results import CURVE, VIEWS, WEIGHTS
from fusionkit.experiment.source import Array

#: More classes do not fit into a confusion matrix, nor more points and targets into a scatter plot.
_MAX_CLASSES, _MAX_POINTS, _MAX_TARGETS = 30, 5000, 4
#: Width and height of a cell in a table of weights, in inches, and the most columns and rows of that size; with more
#: of them cells are smaller and show no values.
_CELL, _MOST_COLUMNS, _MOST_ROWS = (0.6, 0.3), 40, 80

Panel = Callable[[Figure, Axes], None]


def draw_pictures(result: Mapping[str, Any], run_dir: Path, tested: tuple[Array, Array], whole: float | None) -> None:
    """Write the pictures of a completed run to its directory: ``results.pictures`` names them.

    Args:
        result: its record.
        run_dir: the directory.
        tested: as for ``draw_run``.
        whole: as for ``draw_views``.
    """
    write_atomic(run_dir / CURVE, lambda path: draw_run(result, path, tested))
    if result["weights"]:
        write_atomic(run_dir / WEIGHTS, lambda path: draw_weights(result, path))
    if result["views"]:
        write_atomic(run_dir / VIEWS, lambda path: draw_views(result, whole, path))


def draw_run(result: Mapping[str, Any], path: Path, tested: tuple[Array, Array]) -> None:
    """Draw loss and metric by epoch, and the predictions of the test part, to a PNG file.

    Args:
        result: the record of a completed run.
        path: the file.
        tested: what the task predicts for the test part, and its targets.
    """
    panels = [*_curves(result), *_tested(result, *tested)]
    columns = len(panels) if len(panels) <= 4 else (len(panels) + 1) // 2
    rows = -(-len(panels) // columns)
    with _figure(path, 4.0 * columns, 4.1 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            panel(figure, axes)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        metric = result["metric"]
        score = f"{metric} {numeral(metric, result['metrics'].get(metric))},  " if result["metrics"] else ""
        title = f"{_name(result)}:  {score}n = {result['n']},  l = {result['l']:,},  seed {result['seed']}"
        figure.suptitle(fill(title, 40 * columns), fontsize=12, fontweight="bold")


def draw_weights(result: Mapping[str, Any], path: Path) -> None:
    """Draw the mean weight of each view in the fusion, by class or label, to a PNG file.

    Args:
        result: the record of a completed run that has ``weights``.
        path: the file.
    """
    groups: Mapping[str, Mapping[str, float | None]] = result["weights"]
    views = list(next(iter(groups.values())))
    values = np.asarray([list(group.values()) for group in groups.values()], dtype=np.float64)  # None becomes NaN.
    by_group = result["task"] != "regression"
    columns, rows = (len(views), len(groups)) if by_group else (1, len(views))
    width, height = _CELL[0] * min(columns, _MOST_COLUMNS), _CELL[1] * min(rows, _MOST_ROWS)
    with _figure(path, max(6.0, 2.2 + width), 1.9 + height) as figure:
        axes = figure.subplots()
        if by_group:
            _heat_map(figure, axes, values, list(groups), views)
            axes.set_xlabel("view")
            axes.set_ylabel("label" if result["task"] == "multilabel" else "true class")
        else:
            _bars(axes, values[0], views)
        axes.set_title("mean weight on the test rows that have the view", fontweight="normal")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.suptitle(fill(f"{_name(result)}, seed {result['seed']}", 70), fontsize=12, fontweight="bold")


def draw_views(result: Mapping[str, Any], whole: float | None, path: Path) -> None:
    """Draw how much each view matters, the one that matters most on top, to a PNG file.

    Args:
        result: the record of a completed run that has ``views``.
        whole: the metric with all views, on the same rows.
        path: the file.
    """
    metric, views = result["metric"], ranked(result["views"])
    keys = ("loss", "low", "high", "without")  # None becomes NaN.
    loss, low, high, without = np.asarray([[view[key] for key in keys] for view in views.values()], dtype=float).T
    absent = rank_value(metric, 1.0) * ((np.nan if whole is None else whole) - without)
    with _figure(path, 7.0, 2.0 + _CELL[1] * min(len(views), _MOST_ROWS)) as figure:
        axes = figure.subplots()
        at, interval = np.arange(len(views)), np.nan_to_num([loss - low, high - loss])
        axes.barh(at, np.nan_to_num(loss), height=0.7, color=_BLUE, xerr=interval, error_kw={"elinewidth": 1})
        axes.plot(absent, at, "D", color=_ORANGE, markersize=4.5)
        ticks = at[:: -(-len(at) // _MOST_ROWS)]
        names, digits = list(views), places(metric, float(np.nanmax(np.abs(loss), initial=0.0)))
        values = [f"{value:z.{digits}f}" if np.isfinite(value) else "-" for value in loss]
        axes.set_yticks(ticks, [f"{one_line(names[i], 30)}   {values[i]}" for i in ticks], fontsize=8)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.05, y=0.01)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(
            f"by how much the {metric} {worse(metric)} when a view is permuted", loc="right", fontweight="normal"
        )
        mark = ";  ◆ when it is absent from every row" if np.isfinite(absent).any() else ""
        axes.set_xlabel(
            f"mean of {DRAWS} draws, 95 % interval{mark}", loc="right"
        )  # A legend takes a tenth of the time.
        axes.xaxis.set_major_locator(MaxNLocator(5))
        figure.suptitle(fill(f"{_name(result)}, seed {result['seed']}", 70), fontsize=12, fontweight="bold")


def _heat_map(figure: Figure, axes: Axes, values: Array, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw a table of numbers; grey cells have none."""
    known = values[np.isfinite(values)]
    # At least twice an equal share, so that equal weights look alike and not large.
    low, high = float(known.min(initial=0.0)), float(known.max(initial=2 / len(columns)))
    image = axes.imshow(values, cmap="Blues", vmin=low, vmax=low + 1.15 * (high - low), aspect="auto")
    for axis, names, most in ((axes.xaxis, columns, _MOST_COLUMNS), (axes.yaxis, rows, _MOST_ROWS)):
        ticks = range(0, len(names), -(-len(names) // most))
        axis.set_ticks(ticks, [one_line(names[i], 30) for i in ticks], fontsize=8)
    axes.xaxis.set_tick_params(rotation=90 if max(map(len, columns)) > 8 else 0)
    axes.grid(visible=False)
    axes.set_facecolor("#e2e8f0")
    if len(columns) > _MOST_COLUMNS or len(rows) > _MOST_ROWS:
        figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
        return
    for (i, j), value in np.ndenumerate(values):
        dark = np.isfinite(value) and value - low > 0.6 * (high - low)
        text = _weight(value, float(known.max(initial=0.0)))
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")


def _bars(axes: Axes, values: Array, names: Sequence[str]) -> None:
    """Draw a bar per name, the first on top."""
    bars = axes.barh(range(len(names)), np.nan_to_num(values), color=_BLUE, height=0.7)
    if len(names) <= _MOST_ROWS:
        high = float(np.nanmax(np.abs(values), initial=0.0))
        axes.bar_label(bars, [_weight(value, high) for value in values], padding=3, fontsize=8)
    ticks = range(0, len(names), -(-len(names) // _MOST_ROWS))
    axes.set_yticks(ticks, [one_line(names[i], 30) for i in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.1, y=0.01)


def _weight(value: float, highest: float) -> str:
    """Return a weight, with more decimals where all are small; a dash for one that is unknown."""
    return f"{value:.{2 if highest >= 0.3 else 3}f}" if np.isfinite(value) else "-"


def _name(result: Mapping[str, Any]) -> str:
    """Return what was trained on what."""
    fabrication = f" ({result['fabrication']})" if result["fabrication"] else ""
    return f"{result['fusion']}{fabrication} on {result['data']['label']}"


def _curves(result: Mapping[str, Any]) -> list[Panel]:
    history, metric = result["history"], result["metric"]
    panels: list[Panel] = [partial(_curve, y=history["loss"], color=_BLUE, title="training loss")]
    for key, part in ((metric, "test"), (f"validation_{metric}", "validation")):
        if key in history:
            best = result["best_epoch"] if part == "validation" else None
            panels.append(partial(_curve, y=history[key], color=_ORANGE, title=f"{part} {metric}", best=best))
    return panels


def _tested(result: Mapping[str, Any], predicted: Array, target: Array) -> list[Panel]:
    """Return what the test part shows, by task."""
    if not len(target):
        return []
    if result["task"] == "regression":
        return [
            partial(_against, predicted=predicted, target=target, names=result["targets"]),
            partial(_residuals, predicted=predicted, target=target, names=result["targets"]),
        ]
    if result["task"] == "multilabel":
        return [partial(_reliability, confidence=predicted.ravel(), right=target.ravel(), of="labels")]
    panels: list[Panel] = []
    if len(result["classes"]) <= _MAX_CLASSES:
        panels.append(partial(_confusion, counts=result["confusion"], classes=result["classes"]))
    if len(result["classes"]) == 2 and 0 < target.sum() < len(target):
        panels.append(partial(_roc, score=predicted[:, 1], positive=target == 1, name=result["classes"][1]))
    right = predicted.argmax(-1) == target
    return [*panels, partial(_reliability, confidence=predicted.max(-1), right=right, of="predicted classes")]


def _curve(
    figure: Figure, axes: Axes, y: Sequence[float | None], color: str, title: str, best: int | None = None
) -> None:
    """Draw a curve by epoch; the value of the best epoch, or of the last one, is beside the title."""
    x, values = range(1, len(y) + 1), [np.nan if one is None else one for one in y]
    at = (best or len(y)) - 1
    axes.plot(x, values, color=color, linewidth=1.8, marker="o" if len(y) < 8 else None)
    axes.plot(x[at], values[at], "o", color=color, markersize=5)
    axes.set_title(title, fontweight="normal")
    axes.set_title(numeral(title.split()[-1], y[at]), loc="right", color=color)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if title.endswith("accuracy") and y[at] is not None:
        # The last epochs matter; the full range of the first ones would flatten them.
        axes.set_ylim(max(0.0, 1 - 6 * max(1 - values[at], 0.01)), 1.002)


def _roc(figure: Figure, axes: Axes, score: Array, positive: Array, name: Any) -> None:
    """Draw the ROC curve of a class."""
    false, true, _ = roc_curve(positive, score)
    points = _chosen(len(false))  # A line of millions of points would take minutes.
    axes.plot(false[points], true[points], color=_BLUE, linewidth=1.8)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":")
    axes.set_title(f"ROC, positive: {one_line(str(name), 20)}", fontweight="normal")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")


def _reliability(figure: Figure, axes: Axes, confidence: Array, right: Array, of: str) -> None:
    """Draw how often predictions of a probability are right, in equal bins; dots are larger where more rows are."""
    bins = calibration_bins(confidence)
    counts = np.bincount(bins)
    used = counts > 0
    sums = [np.bincount(bins, weights=values)[used] for values in (confidence, right)]
    x, y = (one / counts[used] for one in sums)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":")
    axes.plot(x, y, color=_ORANGE, linewidth=1.2)
    axes.scatter(x, y, s=12 + 120 * counts[used] / counts.max(), color=_ORANGE, zorder=3)
    axes.set_title(f"reliability of {of}", fontweight="normal")
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share that is right")
    axes.set_ylim(-0.02, 1.02)


def _chosen(rows: int) -> Array:
    """Return the numbers of rows, evenly spaced, that a plot can show as points."""
    return np.unique(np.linspace(0, rows - 1, min(rows, _MAX_POINTS)).astype(int))


def _against(figure: Figure, axes: Axes, predicted: Array, target: Array, names: Sequence[str]) -> None:
    """Draw the predicted numbers against the true ones; of several targets in standard deviations."""
    rows, (found, true) = _chosen(len(target)), _comparable(predicted, target)
    for i, name in enumerate(names[:_MAX_TARGETS]):
        axes.scatter(true[rows, i], found[rows, i], s=8, alpha=0.5, linewidth=0, label=one_line(name, 20))
    low, high = float(min(true.min(), found.min())), float(max(true.max(), found.max()))
    axes.plot([low, high], [low, high], color=_GREY, linewidth=1, linestyle=":")
    axes.set_title(_title("predicted against true", names), fontweight="normal")
    axes.set_xlabel("true" if len(names) > 1 else f"true {one_line(names[0], 30)}")
    axes.set_ylabel("predicted")
    if len(names) > 1:
        axes.legend()


def _residuals(figure: Figure, axes: Axes, predicted: Array, target: Array, names: Sequence[str]) -> None:
    """Draw the residuals by predicted number."""
    rows, (found, true) = _chosen(len(target)), _comparable(predicted, target)
    for i, _ in enumerate(names[:_MAX_TARGETS]):
        axes.scatter(found[rows, i], (true - found)[rows, i], s=8, alpha=0.5, linewidth=0)
    axes.axhline(0, color=_GREY, linewidth=1, linestyle=":")
    axes.set_title(_title("residuals", names), fontweight="normal")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true - predicted")


def _comparable(predicted: Array, target: Array) -> tuple[Array, Array]:
    if target.shape[1] == 1:
        return predicted, target
    scale = target.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    return (predicted - target.mean(0)) / scale, (target - target.mean(0)) / scale


def _title(what: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return what
    some = f", {_MAX_TARGETS} of {len(names)} targets" if len(names) > _MAX_TARGETS else ""
    return f"{what} (in standard deviations{some})"


def _confusion(figure: Figure, axes: Axes, counts: Sequence[Sequence[int]], classes: Sequence[Any]) -> None:
    table = np.asarray(counts)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    # By share of the true class; the square root makes single errors visible.
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1.15)
    k = len(classes)
    if k <= 20:
        for i, j in zip(*np.nonzero(table), strict=True):
            color = "white" if share[i, j] > 0.4 else "black"
            axes.text(j, i, str(table[i, j]), ha="center", va="center", fontsize=8 if k <= 12 else 6, color=color)
    ticks = range(0, k, max(1, -(-k // 20)))
    labels = [str(classes[i])[:12] for i in ticks]
    wide = max(map(len, labels)) > 3
    axes.set_xticks(ticks, labels, rotation=90 if wide else 0, fontsize=8)
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    rows = int(table.sum())
    axes.set_title(f"test part: {rows - int(np.trace(table))} errors in {rows} rows", fontweight="normal")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
