"""``fusionkit benchmark``: the study "accuracy against l" on three real data sets, resumable, as table and pictures."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fusionkit._util.tables import print_table
from fusionkit.cli.arguments import Parser
from fusionkit.errors import ConfigError
from fusionkit.experiment import results
from fusionkit.study.analysis import analyse, difference, markdown
from fusionkit.study.plan import DATA, Job, Plan, execute, outcome, plan

__all__ = ["main"]

SCHEMA_VERSION = 1
SUMMARY, TABLE = "benchmark.json", "benchmark.md"
ACCURACY, ROBUSTNESS = "accuracy.png", "robustness.png"
#: Passes of a quick study.
_QUICK_EPOCHS = 15


def main(argv: Sequence[str]) -> int:
    """Run the study, or what is left of it, and write its results; return 1 if a training failed."""
    options = _parser().parse_args(argv)
    begun = time.perf_counter()
    made = plan(
        options.out,
        data=list(dict.fromkeys(options.data)),
        repeats=options.repeats or (1 if options.quick else 2),
        folds=options.folds or (3 if options.quick else 5),
        seed=options.seed,
        quick=options.quick,
        options=[*([f"train.epochs={_QUICK_EPOCHS}"] if options.quick else []), *options.set],
        extra=[shlex.split(line) for line in options.add],
    )
    try:
        made.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out should be a directory to write to; found {options.out}: {error.strerror}.") from error
    for sentence in made.left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    with _Progress(made, options.workers) as progress:
        try:
            failed = execute(made, workers=options.workers, report=progress.report)
        except KeyboardInterrupt:
            print("interrupted: the same command goes on from here", file=sys.stderr)
            raise
    rows = analyse(made)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "command": "fusionkit benchmark " + shlex.join(str(one) for one in argv),
        "settings": dict(made.settings),
        "interval": "95 %, of the mean over seeds and folds, cut to 0 to 1, corrected for overlapping training parts "
        "(Nadeau and Bengio, 2003)",
        "p": "two-sided corrected resampled t-test in the same folds; p_holm: adjusted by Holm over the rows of a "
        "data set",
        "seconds": round(time.perf_counter() - begun, 1),
        "trainings": len(made.jobs),
        "failed": failed,
        "left_out": made.left_out,
        "provenance": results.provenance({}),
        "rows": rows,
    }
    _write(made.directory, summary)
    if options.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _print(rows, made.directory)
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> Parser:
    parser = Parser(
        prog="fusionkit benchmark",
        description="Accuracy against the number of learnable parameters l: operators x fabrications x ranks in "
        "repeated stratified folds of three real data sets, compared in the same folds with the dense concatenation "
        "and with scikit-learn's logistic regression and RBF SVM; accuracy with views missing and noisy.  About 20 "
        "minutes on two cores.  What is completed is skipped when the command is repeated.",
        epilog="examples:\n"
        "  fusionkit benchmark --quick\n"
        "  fusionkit benchmark --out study --repeats 3\n"
        "  fusionkit benchmark --data digits --add 'fabrication=lowrank fabrication.r=3' --set train.epochs=30\n"
        "  fusionkit leaderboard benchmark --html report.html",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmark"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a handful of contestants, one repeat of three folds")
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA, metavar="NAME", help="; ".join(DATA))
    parser.add_argument("--repeats", type=_positive, metavar="N", help="default: 2, with --quick 1")
    parser.add_argument("--folds", type=_folds, metavar="N", help="default: 5, with --quick 3")
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help="of the first repeat (default: 0)")
    parser.add_argument("--add", action="append", default=[], metavar="OVERRIDES", help="one more contestant")
    parser.add_argument("--set", action="append", default=[], metavar="OVERRIDE", help="an option for all of them")
    parser.add_argument(
        "--workers", type=_positive, default=_cpus(), metavar="N", help="default: the CPUs, here %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _natural(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"it should be an integer of at least {least}; found {text!r}")
    return int(text)


def _positive(text: str) -> int:
    return _natural(text, 1)


def _folds(text: str) -> int:
    return _natural(text, 2)


def _write(directory: Path, summary: Mapping[str, Any]) -> None:
    from fusionkit.experiment.plots import draw_robustness, draw_study

    rows = summary["rows"]
    results.write_json(directory / SUMMARY, summary)
    text = f"{markdown(rows)}\nMade by `{summary['command']}`.\n"
    results.write_atomic(directory / TABLE, lambda path: path.write_text(text, encoding="utf-8"))
    if rows:
        results.write_atomic(directory / ACCURACY, lambda path: draw_study(rows, path))
        results.write_atomic(directory / ROBUSTNESS, lambda path: draw_robustness(rows, path))


def _print(rows: Sequence[Mapping[str, Any]], directory: Path) -> None:
    columns = ["data", "contestant", "l", "of dense", "accuracy", "95 % interval", "minus dense", "p", "on front"]
    cells = []
    for row in rows:
        against = row["against"].get("dense") or {}
        spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
        adjusted = against.get("p_holm")
        cells.append(
            (
                row["data"],
                row["name"],
                row["l"],
                None if row["share_of_dense"] is None else f"{100 * row['share_of_dense']:.2f} %",
                f"{row['mean']:.4f}{spread}",
                None if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}",
                difference(against["difference"]) if against else None,
                None if adjusted is None else f"{adjusted:.2g}",
                "yes" if row["on_front"] else None,
            )
        )
    if cells:
        print_table(columns, cells, whole=("contestant", "accuracy"))
    for name in (SUMMARY, TABLE, ACCURACY, ROBUSTNESS):
        print(f"{'files' if name == SUMMARY else '     '}  {directory / name}")


class _Progress:
    """How much is done, and the time left: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, made: Plan, workers: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.waiting: dict[str, int] = {}
        done = 0
        for job in made.jobs:
            if outcome(job) is None:
                self.waiting[self._kind(job)] = self.waiting.get(self._kind(job), 0) + 1
            else:
                done += 1
        self.total, self.done, self.workers = len(made.jobs), done, workers
        self.spent: dict[str, list[float]] = {}
        self.lines = not sys.stderr.isatty()
        self.shown = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.fields[what]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
            disable=self.lines,
        )
        self.task = self.bar.add_task("", total=self.total, completed=done, what="trainings", left="")
        if self.lines:
            print(f"{done} of {self.total} trainings done", file=sys.stderr, flush=True)

    @staticmethod
    def _kind(job: Job) -> str:
        return f"{job.entry.data} {job.entry.name if job.entry.baseline else ''}"

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def report(self, job: Job, found: Mapping[str, Any], left: int) -> None:
        """Take note of a finished job."""
        self.done += 1
        self.waiting[self._kind(job)] -= 1
        if isinstance(found.get("seconds"), int | float):
            self.spent.setdefault(self._kind(job), []).append(float(found["seconds"]))
        text = f"{_duration(self._left())} left"
        self.bar.update(self.task, completed=self.done, what=f"{job.entry.data} {job.entry.name}"[:48], left=text)
        if self.lines and (left == 0 or time.monotonic() - self.shown > 10):
            self.shown = time.monotonic()
            print(f"{self.done} of {self.total} trainings done, {text}", file=sys.stderr, flush=True)

    def _left(self) -> float:
        """Return the seconds left: per data set the mean so far, or that over all."""
        everything = [seconds for many in self.spent.values() for seconds in many]
        usual = sum(everything) / max(1, len(everything))
        means = {kind: sum(many) / len(many) for kind, many in self.spent.items()}
        return sum(count * means.get(kind, usual) for kind, count in self.waiting.items()) / self.workers


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
