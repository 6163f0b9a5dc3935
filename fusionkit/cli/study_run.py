"""What ``fusionkit study`` does: accuracy against l and with missing views, resumable, as tables and pictures."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fusionkit import registry
from fusionkit._util.files import write_atomic, write_json, write_text
from fusionkit._util.machine import cpu_count
from fusionkit._util.progress import ProgressBar
from fusionkit._util.tables import print_table
from fusionkit._util.text import duration
from fusionkit.cli.commands import print_json
from fusionkit.cli.study_sets import begin, run_sets
from fusionkit.errors import ConfigError
from fusionkit.experiment.plots import draw_missing, draw_robustness, draw_study
from fusionkit.experiment.results import provenance
from fusionkit.study import DATA
from fusionkit.study.analysis import REFERENCES, analyse, analyse_missing
from fusionkit.study.plan import Job, Settings, Study, execute, outcome, plan

SCHEMA_VERSION = 1
ACCURACY, ROBUSTNESS, MISSING = "accuracy.png", "robustness.png", "missing.png"
#: Passes over the training data in a quick study.
QUICK_EPOCHS = 15
#: What the table of missing views shows.
TRAININGS = "without → with view dropout (p)"
#: What the numbers of a row mean.
METHODS = {
    "interval": "95 %, of the mean over seeds and folds, cut to 0 to 1, corrected for overlapping training parts "
    "(Nadeau and Bengio, 2003)",
    "p": "two-sided corrected resampled t-test in the same folds; p_holm: adjusted by Holm over the rows of a data set",
    "missing_views": "accuracy by the rate at which the views of each row are missing, at random, one being kept; "
    "means of five draws; gain: with view dropout minus without, by the same test, at each rate",
}


def run_study(
    name: str, arguments: Sequence[str], /, *, out: Path | None, workers: int | None, as_json: bool, **given: Any
) -> int:
    """Run a study and print its table; return the exit status.

    Args:
        name: of the files, and of the directory by default.
        arguments: of ``fusionkit``, for the summary.
        out: the directory.
        workers: number of processes.
        as_json: print JSON.
        **given: the other options of the command.
    """
    begun = time.perf_counter()
    directory = out or Path(name)
    if given["sets"]:
        return run_sets(
            directory,
            _settings_of_sets(given),
            lambda study: _execute(study, workers or cpu_count()),
            arguments,
            as_json=as_json,
        )
    planned = plan(directory, **_settings(given))
    begin(planned)
    failed = _execute(planned, workers or cpu_count())
    rows, missing = analyse(planned), analyse_missing(planned)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "command": f"fusionkit {shlex.join(arguments)}",
        "settings": dict(planned.settings),
        **METHODS,
        "seconds": round(time.perf_counter() - begun, 1),
        "trainings": len(planned.jobs),
        "failed": failed,
        "left_out": planned.left_out,
        "provenance": provenance({}),
        "rows": rows,
        "missing": missing,
    }
    files = _write(planned.directory, name, summary)
    if as_json:
        print_json(summary)
    else:
        _print(rows, missing, files)
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def _settings(given: Mapping[str, Any]) -> Settings:
    """Return the settings of a study from the options of the command."""
    quick: bool = given["quick"]
    named = dict(word.partition("=")[::2] for word in [*given["data"], *given["more_data"]])
    for data in named:
        registry.resolve("dataset", data)
    return {
        "data": list(named) or list(DATA),
        "paths": {data: path for data, path in named.items() if path},
        "repeats": given["repeats"] or (1 if quick else 2),
        "folds": given["folds"] or (3 if quick else 5),
        "seed": given["seed"],
        "quick": quick,
        "missing": given["missing"],
        "options": [*([f"train.epochs={QUICK_EPOCHS}"] if quick else []), *given["options"]],
        "extra": [shlex.split(line) for line in given["add"]],
        "plugins": list(dict.fromkeys(given["plugin"])),
    }


def _settings_of_sets(given: Mapping[str, Any]) -> Settings:
    """Return those of the table of data sets; no data stand for all that are registered.

    Raises:
        ConfigError: options that are of the study of accuracy alone.
    """
    if found := [f"--{key}" for key in ("missing", "plugin", "repeats") if given[key]]:
        raise ConfigError(f"--sets should be without {' and '.join(found)}, which the study of accuracy has.")
    settings = _settings(given)
    return {**settings, "repeats": 1, "data": settings["data"] if given["data"] or given["more_data"] else []}


def _execute(planned: Study, workers: int) -> list[str]:
    """Run the trainings that are left, with a progress bar; return a sentence for each failed one."""
    total, todo = len(planned.jobs), sum(outcome(job) is None for job in planned.jobs)
    begun = time.monotonic()
    with ProgressBar(total) as bar:

        def report(left: int, time_left: str = "", *, now: bool) -> None:
            bar.update(total - left, f"{total - left} of {total} trainings done", time_left, now=now)

        def ended(job: Job, record: Mapping[str, Any], left: int) -> None:
            seconds = (time.monotonic() - begun) / (todo - left) * left
            report(left, f"{duration(seconds)} left", now=left == 0)

        report(todo, now=True)
        try:
            return execute(planned, workers=workers, report=ended)
        except KeyboardInterrupt as error:
            error.add_note("the same command continues from here")
            raise


def _write(directory: Path, name: str, summary: Mapping[str, Any]) -> list[Path]:
    """Write the summary, the tables and the pictures; return their paths."""
    rows, missing = summary["rows"], summary["missing"]
    files = [directory / file for file in (f"{name}.json", f"{name}.md", ACCURACY, ROBUSTNESS, MISSING)]
    write_json(files[0], summary)
    text = f"{markdown(rows)}\n## Missing views\n\n{missing_markdown(missing)}\nMade by `{summary['command']}`.\n"
    write_text(files[1], text)
    if rows:
        # Without the operators of plugins, which are too many for a legend.
        drawn = [row for row in rows if not row["once"]]
        write_atomic(files[2], lambda path: draw_study(drawn, path))
        write_atomic(files[3], lambda path: draw_robustness(drawn, path))
        write_atomic(files[4], lambda path: draw_missing([row for row in missing if not row["once"]], path))
    return files


# -- the tables --------------------------------------------------------------------------------------------------------


def _print(rows: Sequence[Mapping[str, Any]], missing: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> None:
    columns = ("data", "contestant", "l", "of dense", "accuracy", "sd", "95 % interval", "minus dense (p)", "on front")
    if rows:
        print_table(columns, [[_cells(row)[column] for column in columns] for row in rows], whole=("contestant",))
    if missing:
        print(f"\naccuracy by the rate of missing views, {TRAININGS}")
        print_table(("data", "contestant", "folds", *missing[0]["without"]), [_missing_cells(row) for row in missing])
    for file in files:
        print(f"{'files' if file == files[0] else '     '}  {file}")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as Markdown, a table per data set: baselines in italics, the front in bold, encoders as ¹."""
    lines = []
    for data, group in groupby(rows, lambda row: row["data"]):
        tables = []
        for row in group:
            name = f"*{row['name'].replace('_', ' ')}*" if row["baseline"] else f"`{row['name']}`"
            name = f"**{name}**" if row["on_front"] else name
            name += "" if row["encoder"] in (None, "none") else " ¹"
            tables.append(_cells(row) | {"contestant": name})
        columns = [column for column in tables[0] if column not in ("data", "on front")]
        lines += [f"### {data}", "", f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
        lines += [f"| {' | '.join(table[column] for column in columns)} |" for table in tables]
        lines.append("")
    return "\n".join(lines)


def missing_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of missing views as Markdown, a table per data set: baselines in italics."""
    lines = []
    for data, group in groupby(rows, lambda row: row["data"]):
        found = list(group)
        rates = list(found[0]["without"])
        lines += [
            f"### {data}",
            "",
            f"| contestant | folds | {' | '.join(rates)} |",
            "|---|---:|" + "---:|" * len(rates),
        ]
        for row in found:
            _, name, *cells = _missing_cells(row)
            shown = f"*{name.replace('_', ' ')}*" if row["baseline"] else f"`{name}`"
            lines.append(f"| {shown} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _missing_cells(row: Mapping[str, Any]) -> list[str]:
    """Return data set, name, folds, and by rate the accuracy without and with view dropout and the difference's p."""
    cells = [row["data"], row["name"], str(row["count"])]
    for rate, without in row["without"].items():
        text = "refuses" if without is None else f"{without['mean']:.4f}"
        if (then := row["with"][rate]) is not None:
            text += f" → {then['mean']:.4f}"
        gain = row["gain"][rate]
        cells.append(text if gain is None or gain["p_holm"] is None else f"{text} ({gain['p_holm']:.2g})")
    return cells


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a row as text, by the heading of the column."""
    return {
        "data": row["data"],
        "contestant": row["name"],
        "l": _shown(row["l"], ""),
        "of dense": _shown(row["share_of_dense"], ".2%").replace("%", " %"),
        "parameters": _shown(row["parameters"], ""),
        "folds": _shown(row["count"], ""),
        "accuracy": _shown(row["mean"], ".4f"),
        "sd": _shown(row["std"], ".4f"),
        "95 % interval": "" if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}",
        **{f"minus {name.replace('_', ' ')} (p)": _difference(row["against"].get(name)) for name in REFERENCES},
        "on front": "yes" if row["on_front"] else "",
    }


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _difference(found: Mapping[str, Any] | None) -> str:
    """Return a difference of accuracies and its p; the difference has a sign unless it is rounded to zero."""
    if found is None:
        return ""
    difference = f"{found['difference']:+.4f}"
    p = "" if found["p_holm"] is None else f" ({found['p_holm']:.2g})"
    return difference.replace("+0.0000", "0.0000").replace("-0.0000", "0.0000") + p
