"""What a run prints about its data before the training, and about its results after it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from fusionkit._util.tables import print_table
from fusionkit._util.text import count_of
from fusionkit.experiment import results
from fusionkit.experiment.data import Dataset
from fusionkit.experiment.importance import ranked, worse
from fusionkit.experiment.metrics import REGRESSION, numeral, places, rank_value
from fusionkit.experiment.splits import Parts

#: Above this multiple of its equal share, the largest class makes accuracy look better than it is.
_UNEVEN = 1.5
_BASELINES = {"classification": "largest class", "multilabel": "shares of training", "regression": "mean of training"}


def run_title(fusion: str, fabrication: str | None, data: str, seed: int) -> str:
    """Return what is trained on what."""
    return f"{fusion} ({fabrication}) on {data}, seed {seed}" if fabrication else f"{fusion} on {data}, seed {seed}"


def print_data(data: Dataset, parts: Parts, file: TextIO) -> None:
    """Print lines about data: rows, views, what was left out, the task and the parts."""
    print(*described_data(data, parts), sep="\n", file=file, flush=True)


def described_data(data: Dataset, parts: Parts) -> Iterator[str]:
    """Yield the lines that ``print_data`` prints."""
    widths = ", ".join(f"{name} ({width})" for name, width in zip(data.views, data.dims, strict=True))
    yield f"data: {data.rows} rows of {data.label}; views with their widths: {widths}"
    yield from (f"note: {note}" for note in data.notes)
    positive = f"; positive: {data.classes[-1]!r}" if data.strata is not None and len(data.classes) == 2 else ""
    names = data.labels.names
    label = f"{names[0]!r}" if len(names) == 1 else f"{len(names)} columns"
    reason = f": {data.reason}" if data.reason else ""
    yield f"task: {data.task.name}, from {label}{reason}{positive}"
    yield f"rows: {', '.join(f'{len(rows)} {name}' for name, rows in parts.named().items() if len(rows))}"
    yield from (f"note: {note}" for note in parts.notes)


def print_summary(result: Mapping[str, Any], run_dir: Path) -> None:
    """Print the results of a run, and the command that predicts with it."""
    files = [results.RESULT, results.MODEL, results.ROWS, *results.pictures(result)]
    print_table(
        ("run", run_title(result["fusion"], result["fabrication"], result["data"]["label"], result["seed"])),
        [
            *_metrics(result),
            *_views(result),
            *_missing(result["data"]),
            *_left_out(result["data"]),
            ("l", f"{result['l']} learnable parameters of the fusion, n = {result['n']}"),
            ("parameters", f"{result['parameters']} of the whole model"),
            ("contract", "n, l, shape, dtype and device verified at the first call; more by fusionkit check"),
            ("seconds", f"{result['seconds']:.1f}"),
            ("files", results.shown(run_dir)),
            *(("", name) for name in files),
            ("predict", _predict(result, run_dir)),
        ],
    )
    for line in _warnings(result):
        print(f"warning: {line}")


def _predict(result: Mapping[str, Any], run_dir: Path) -> str:
    """Return the command that predicts with the run, on a file or on a file per view."""
    path = result["config"]["data"].get("path")
    files = ", ".join(f"{name}: NEW" for name in path) if isinstance(path, Mapping) else ""
    new = shlex.quote(f"data.path={{{files}}}") if files else "data.path=NEW"
    return f"fusionkit predict {shlex.quote(results.shown(run_dir))} {new} --out predictions.csv"


def _metrics(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the lines of the ranking metric; of balanced accuracy where classes are uneven; of all metrics of one
    target.
    """
    names = [result["metric"]]
    names += [name for name in REGRESSION if name in result["metrics"] and name not in names]
    if not result["metrics"]:
        all_train = "all rows train (data.test_size=0); the run is not ranked"
        yield "metrics", f"none, because {'no row is test (data.test_size=0)' if result['validation'] else all_train}"
    if _is_uneven(result) and "balanced_accuracy" not in names:
        names.append("balanced_accuracy")
    against = _BASELINES[result["task"]]
    for name in names:
        unit = _unit(result, name)
        if result["validation"] is not None:
            rows = result["data"]["validation_rows"]
            value, best = result["validation"][name], ""
            if name == result["metric"]:
                best = f", best in epoch {result['best_epoch']}" if value is not None else ", so the last epoch is kept"
                best += ", before the refit" if result["config"]["train"].get("refit") else ""
            yield name, f"{numeral(name, value)}{unit} on {rows} validation rows{best}"
        if result["metrics"]:
            found, baseline = (numeral(name, result[key][name]) for key in ("metrics", "baseline"))
            baseline = f"{against}: {baseline}{_positive(result, name)}"
            yield name, f"{found}{unit} on {result['data']['test_rows']} test rows ({baseline})"


def _unit(result: Mapping[str, Any], metric: str) -> str:
    """Return the unit of a metric of several targets, which may have different ones."""
    return " standard deviations" if metric in ("rmse", "mae") and len(result["targets"] or ()) > 1 else ""


def _views(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the line of the views that matter most and least; none where that is not known."""
    metric = result["metric"]
    known = [(name, view) for name, view in ranked(result["views"] or {}).items() if view["loss"] is not None]
    if not known:
        return
    part = "" if result["metrics"] else "; on the validation part"
    (most, first), (least, last) = known[0], known[-1]
    if first["loss"] <= 0:
        yield "views", f"none matters: {metric} does not {worse(metric)[:-1]} when one is permuted{part}"
        return
    digits = places(metric, max(abs(view["loss"]) for _, view in known))
    loss, low, high, lowest = (f"{x:z.{digits}f}" for x in (first["loss"], first["low"], first["high"], last["loss"]))
    fall = f"{metric} {worse(metric)} by {loss}{_unit(result, metric)} ({low} to {high}) when it is permuted"
    other = f"; least: {least} {lowest}" if len(known) > 1 else ""
    yield "views", f"{most} matters most: {fall}{other}{part}"


def _positive(result: Mapping[str, Any], metric: str) -> str:
    """Return which of two classes is the positive one of a metric that has one."""
    two = result["task"] == "classification" and len(result["classes"]) == 2
    return f"; positive: {result['classes'][-1]!r}" if two and metric in ("roc_auc", "average_precision") else ""


def _is_uneven(result: Mapping[str, Any]) -> bool:
    if not result["confusion"]:
        return False
    rows = np.asarray(result["confusion"]).sum(1)
    return bool(rows.max() > _UNEVEN * rows.sum() / len(rows))


def _warnings(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line where the model is not better than the baseline."""
    name = result["metric"]
    found, baseline = result["metrics"].get(name), (result["baseline"] or {}).get(name)
    if found is None or baseline is None or rank_value(name, found) > rank_value(name, baseline):
        return
    advice = "the inputs may not tell the label; more epochs, another train.lr or fewer inputs may help"
    if result["task"] == "regression":
        advice += ", and with outliers train.loss=mae"
    elif _is_uneven(result):
        advice = "with uneven classes metric=roc_auc and train.class_weight=balanced may say more"
    yield f"the {name} is not better than that of the baseline: {advice}.  See docs/your-own-data.md."


def _missing(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the line of the summary about absent views; none where all are present."""
    if "missing" not in data:
        return []
    rows, absent = data["rows"], sum(data["missing"].values())
    parts = ", ".join(f"{name} in {count}" for name, count in data["missing"].items() if count)
    without = f"{data['rows_without_views']} rows without any view"
    return [("missing", f"{absent} of {rows * len(data['views'])} views ({parts} of {rows} rows); {without}")]


def _left_out(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the line of the summary about ids without a label; none where there are none."""
    return [("left out", f"{count_of(data['unlabelled'], 'id')} without a label")] if "unlabelled" in data else []
