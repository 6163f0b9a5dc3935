"""The runs below a directory, as ``fusionkit leaderboard`` shows them: a table per data set, task and metric, of groups
of runs that differ in seed and fold only.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from fusionkit._util.text import count_of, one_line, printable
from fusionkit._util.trees import flatten
from fusionkit.config.options import defaults
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.metrics import places, rank_value
from fusionkit.experiment.records import PARTS, limits, read_records
from fusionkit.experiment.reproduce import as_override
from fusionkit.experiment.results import RESULT, resumable_after, shown
from fusionkit.experiment.statistics import Summary, pareto, summarize

_IGNORED = re.compile(
    r"seed|device|.*\.device|train\.(checkpoint_every|num_nodes|timeout)|data\.fold|data\.(test_)?path(\..*)?",
    re.DOTALL,
)
_FABRICATION = "fusion.parameter_fabrication."


class DataSet(NamedTuple):
    """What identifies the data of a run: the same table with another column as label is another data set."""

    digest: str
    label: str
    name: str
    short: str


@dataclass(frozen=True)
class Run:
    """A record and the path of its file."""

    path: Path
    result: Mapping[str, Any]

    @property
    def task(self) -> str:
        """What was learnt; classification in records of before."""
        return str(self.result.get("task", "classification"))

    @property
    def metric(self) -> str:
        """The metric that ranks the run; accuracy in records of before."""
        return str(self.result.get("metric", "accuracy"))

    def value(self, part: str, metric: str | None = None) -> float | None:
        """Return a metric, by default the one that ranks, on ``metrics`` (the test part) or ``validation``.

        Returns:
            None: it is undefined there, or the run has no such part.
        """
        value = (self.result.get(part) or {}).get(metric or self.metric)
        return None if value is None else float(value)

    @cached_property
    def data(self) -> DataSet:
        """What was learnt from; runs of two data sets are never averaged."""
        data = self.result.get("data", {})
        name = str(data.get("name") or "unknown data")
        columns = self.config.get("data.label") or []
        label = printable(", ".join(map(str, columns if isinstance(columns, list) else [columns])))
        widths = _canonical(self.result.get("data_dims"))
        digest = str(data.get("digest") or f"{name} {widths}")
        return DataSet(digest, label, str(data.get("label") or name), digest[:8] if data.get("digest") else widths)

    def share(self, part: str) -> float:
        """Return the rows of a part divided by those and the training rows; a fifth where the record has no number."""
        data = self.result.get("data", {})
        rows, training = data.get(f"{PARTS[part]}_rows"), data.get("training_rows")
        return float(rows / (rows + training)) if rows and training else 0.2

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config without what may differ within a group: seed, number of the fold, device, and the data's paths."""
        mappings = ("train", "class_weight"), ("data", "views")  # Each is one option.
        pairs = flatten(self.result.get("config", {}), whole=mappings.__contains__)
        flat = {".".join(path): value for path, value in pairs}
        kept = {key: value for key, value in flat.items() if not _IGNORED.fullmatch(key)}
        # The test parts of folds and of draws by seeds are not alike.
        return kept if flat.get("data.fold") is None else {**kept, "data.fold": "each"}

    @cached_property
    def filled(self) -> dict[str, Any]:
        """The same, with the defaults of options that a record of before lacks."""
        known = {".".join(path): value for path, value in defaults(self.result.get("config", {})).items()}
        return {**known, **self.config}

    @cached_property
    def fabrication(self) -> str:
        """The fabrication with the options that were given."""
        given = {
            key.removeprefix(_FABRICATION): value for key, value in self.config.items() if key.startswith(_FABRICATION)
        }
        options = ", ".join(f"{key}={given[key]}" for key in sorted(given.keys() - {"name"}) if given[key] is not None)
        return one_line(f"{self.result.get('fabrication') or '-'}{f' ({options})' if options else ''}", 400)

    def key(self) -> str:
        """Return the same text for runs of the same group."""
        facts = [self.result.get(key) for key in ("fusion", "fabrication", "n", "l", "dims", "encoder", "parameters")]
        return _canonical([self.data[:2], self.task, self.metric, facts, self.config])


@dataclass
class Group:
    """Runs that differ in seed and fold only.

    Attributes:
        data: the name of the data set.
        runs: at least one, all completed, no two of the same config and seed; all have the value that ranks, or none.
        part: what ranks its table, ``metrics`` (the test part) or ``validation``.
        options: the options that distinguish the group from others that look alike; whether it has no head.
        on_front: whether no other group of its table has fewer parameters l and is as good.
    """

    data: str
    runs: list[Run]
    part: str = "metrics"
    options: str = ""
    on_front: bool = False

    @property
    def first(self) -> Mapping[str, Any]:
        """The record of the first run."""
        return self.runs[0].result

    def summary(self, part: str, metric: str | None = None) -> Summary | None:
        """Return mean, deviation and the 95 % interval, corrected for training parts that overlap.

        Returns:
            None: a run lacks the value; see ``Run.value``.
        """
        values = [value for run in self.runs if (value := run.value(part, metric)) is not None]
        if len(values) < len(self.runs):
            return None
        return summarize(values, self.runs[0].share(part), limits(metric or self.runs[0].metric))

    def absent(self, part: str) -> str:
        """Return why the group has no ``summary`` of a part."""
        return "undefined" if self.first.get(part) else f"no {PARTS[part]} part"

    @cached_property
    def ranking(self) -> Summary | None:
        """The summary of the value that ranks; None where it is undefined, or the runs have no such part."""
        return self.summary(self.part)

    @property
    def gain(self) -> float | None:
        """The mean that ranks, so that more is better."""
        return None if self.ranking is None else rank_value(self.runs[0].metric, self.ranking.mean)

    @property
    def encoder(self) -> str | None:
        """The encoder in front of the fusion, None without one."""
        found = self.first.get("encoder")
        return None if found == "none" else found

    def to_dict(self) -> dict[str, Any]:
        """Return the row in plain JSON types."""
        test, validation = self.summary("metrics"), self.summary("validation")
        accuracy = self.summary("metrics", "accuracy")
        seconds = [run.result["seconds"] for run in self.runs if run.result.get("seconds") is not None]
        seeds = {run.result.get("seed") for run in self.runs} - {None}
        return {
            "data": self.data,
            "task": self.runs[0].task,
            "metric": self.runs[0].metric,
            "ranked_by": PARTS[self.part],
            **{key: self.first.get(key) for key in ("fusion", "fabrication", "encoder", "n", "l", "parameters")},
            "options": self.options,
            "runs": len(self.runs),
            "seeds": sorted(seeds),
            "value": test and test.mean,
            **{key: test and getattr(test, key) for key in ("std", "low", "high")},
            "validation": validation and validation.mean,
            **{f"validation_{key}": validation and getattr(validation, key) for key in ("std", "low", "high")},
            "accuracy": accuracy and accuracy.mean,
            "on_front": self.on_front,
            "seconds": statistics.fmean(seconds) if seconds else None,
            "paths": [str(run.path.parent) for run in self.runs],
        }

    @property
    def label(self) -> str:
        """The name of the group in a picture."""
        fabrication = self.runs[0].fabrication if self.first.get("fabrication") else ""
        encoder = f"encoder={self.encoder}" if self.encoder else ""
        parts = [str(self.first.get("fusion")), fabrication, f"n={self.first.get('n')}", encoder, self.options]
        return " ".join(part for part in parts if part)


@dataclass
class Table:
    """The groups of one data set, task and metric.

    Attributes:
        groups: the best first; those without a value that ranks last.
        name: of the data set, with task and metric where it has several tables.
        validated: how many of the runs have a validation part.
    """

    groups: list[Group]
    name: str = ""
    validated: int = 0

    @property
    def task(self) -> str:
        """What was learnt."""
        return self.groups[0].runs[0].task

    @property
    def metric(self) -> str:
        """The metric that ranks."""
        return self.groups[0].runs[0].metric

    @property
    def part(self) -> str:
        """What ranks: ``metrics``, the test part, or ``validation``."""
        return self.groups[0].part

    @property
    def ranked_by(self) -> str:
        """The part and the metric that rank, such as ``test rmse``."""
        return f"{PARTS[self.part]} {self.metric}"

    @property
    def less_is_better(self) -> bool:
        """Whether the best group has the least value."""
        return rank_value(self.metric, 1.0) < 0

    @property
    def places(self) -> int:
        """How many decimals of the metric are shown."""
        best = self.groups[0].ranking
        return places(self.metric, 1.0 if best is None else best.mean)

    @property
    def heading(self) -> str:
        """What the table compares, and what ranks it."""
        less = ", less is better" if self.less_is_better else ""
        which = "not every" if self.validated else "no"
        why = f" ({which} run has a validation part)" if self.part == "metrics" else ""
        return f"{self.groups[0].data}: {self.task}, ranked by {self.ranked_by}{less}{why}"


@dataclass
class Board:
    """The runs below a directory.

    Attributes:
        directory: the directory that was searched.
        tables: by data set, task and metric.
        failed: runs that failed.
        unfinished: directories of runs without a record: stopped before their end, or still running.
        problems: files that could not be used, each with a sentence.
        repeated: the number of runs left out because another has the same config and seed.
        resumable: of the failed and the unfinished, those with a checkpoint: directory -> after which epoch.
    """

    directory: Path
    tables: list[Table] = field(default_factory=list)
    failed: list[Run] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repeated: int = 0
    resumable: dict[Path, str] = field(default_factory=dict)

    @property
    def groups(self) -> list[Group]:
        """The groups of all tables."""
        return [group for table in self.tables for group in table.groups]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "schema_version": 1,
            "rows": [group.to_dict() for group in self.groups],
            "failed": [{"path": str(run.path.parent), "error": run.result.get("error")} for run in self.failed],
            "unfinished": [str(path) for path in self.unfinished],
            "resumable": [{"path": str(path), "after": place} for path, place in self.resumable.items()],
            "problems": self.problems,
            "repeated": self.repeated,
        }

    def points(self) -> list[dict[str, Any]]:
        """Return what ``plots.draw_leaderboard`` draws of each group that has the value that ranks."""
        return [
            {
                "table": table.name,
                "label": group.label,
                "l": group.first["l"],
                "mean": group.ranking.mean,
                "std": group.ranking.std,
                "ranked_by": table.ranked_by,
                "less_is_better": table.less_is_better,
                "places": table.places,
            }
            for table in self.tables
            for group in table.groups
            if group.ranking is not None
        ]

    def left_out(self) -> Iterator[str]:
        """Yield a line for everything that is not in the table."""
        for run in self.failed:
            yield f"failed: {run.path.parent}: {one_line(str(run.result.get('error')), 400)}"
        for path in self.unfinished:
            yield f"unfinished: {path}: it has no {RESULT}; the run was stopped or is still running"
        for path, place in self.resumable.items():
            yield f"resumable: {path}: fusionkit run --resume {shlex.quote(shown(path))} goes on after {place}"
        for problem in self.problems:
            yield f"left out: {problem}"
        if self.repeated:
            yield f"left out: {count_of(self.repeated, 'repeated run')}, of the same config and seed as another."

    def shown_directory(self, group: Group) -> str:
        """Return the directory of the first run of a group, relative to the board's, and the number of the others."""
        first = group.runs[0].path.parent
        shown = str(first.relative_to(self.directory)) if first.is_relative_to(self.directory) else str(first)
        return shown if len(group.runs) == 1 else f"{shown} (+{len(group.runs) - 1})"


def read_board(directory: Path) -> Board:
    """Read the records of all runs below ``directory``, as ``read_records`` does, and group the runs.

    Raises:
        ConfigError: no such directory.  A record that cannot be used is among the board's problems.
    """
    if not directory.is_dir():
        raise ConfigError(f"The directory of runs should exist; found no directory {directory}.")
    board = Board(directory)
    runs: list[Run] = []
    seen: set[str] = set()
    for folder, found in read_records(directory):
        if found is None:
            board.unfinished.append(folder)
            _note_resumable(board, folder)
            continue
        if isinstance(found, FusionError):
            board.problems.append(str(found))
            continue
        run = Run(folder / RESULT, found)
        digest = run.result.get("config_hash")
        if run.result["status"] == "failed":
            board.failed.append(run)
            _note_resumable(board, folder)
        elif digest in seen:
            board.repeated += 1
        else:
            if digest is not None:
                seen.add(digest)
            runs.append(run)
    board.tables = _tables(runs)
    return board


def _note_resumable(board: Board, folder: Path) -> None:
    if place := resumable_after(folder):
        board.resumable[folder] = place


def _tables(runs: Sequence[Run]) -> list[Table]:
    """Return the tables of all runs, sorted, and their groups with unique names of data sets."""
    names = _names({run.data for run in runs})
    sorted_runs: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        sorted_runs.setdefault((names[run.data], run.task, run.metric), []).append(run)
    tables = [_table(data, mine) for (data, _, _), mine in sorted(sorted_runs.items())]
    several = Counter(table.groups[0].data for table in tables)
    for table in tables:
        data = table.groups[0].data
        table.name = data if several[data] == 1 else f"{data}: {table.task} by {table.metric}"
    return tables


def _names(sets: Set[DataSet]) -> dict[DataSet, str]:
    """Return a name for each data set; of two with one name it has what tells them apart."""
    names = {}
    for one in sets:
        others = [other for other in sets if other.name == one.name and other != one]
        labels = [one.label] if any(other.label != one.label for other in others) else []
        files = [one.short] if any(other.digest != one.digest for other in others) else []
        apart = ", ".join(filter(None, [*labels, *files]))
        names[one] = f"{one.name} ({apart})" if apart else one.name
    return names


def _table(data: str, runs: Sequence[Run]) -> Table:
    """Return the table of the runs of one data set, task and metric; a run without any part is not ranked."""
    validated = [run for run in runs if run.result.get("validation")]
    measured = [run for run in runs if run.result.get("metrics") or run.result.get("validation")]
    part = "validation" if validated and len(validated) == len(measured) else "metrics"
    found: dict[tuple[str, bool], Group] = {}
    for run in runs:
        found.setdefault((run.key(), run.value(part) is None), Group(data, [], part)).runs.append(run)
    groups = list(found.values())
    _set_options(groups)
    # Encoders have parameters too, which l does not count.
    own = [(group, group.gain) for group in groups if group.encoder is None]
    ranked = [(group, gain) for group, gain in own if gain is not None]
    for i in pareto([(group.first["l"], gain) for group, gain in ranked]):
        ranked[i][0].on_front = True
    return Table(sorted(groups, key=_rank), validated=len(validated))


def _rank(group: Group) -> tuple[float, int, str]:
    return math.inf if group.gain is None else -group.gain, group.first["l"], group.label


def _set_options(groups: Sequence[Group]) -> None:
    """Set ``options`` of the groups of a table that look alike, and of those without a head, which no column shows."""
    alike: dict[str, list[Group]] = {}
    for group in groups:
        looks = [group.runs[0].fabrication, *map(group.first.get, ("fusion", "n", "encoder"))]
        alike.setdefault(_canonical(looks), []).append(group)
    for bucket in alike.values():
        configs = [group.runs[0].filled for group in bucket]
        keys = sorted({key for config in configs for key in config})
        alone = len(bucket) == 1
        differing = [key for key in keys if not alone and len({_canonical(config.get(key)) for config in configs}) > 1]
        for group, config in zip(bucket, configs, strict=True):
            shown = sorted({*differing, *(["model.head"] if config.get("model.head") == "none" else [])})
            group.options = one_line(" ".join(f"{key}={as_override(config.get(key))}" for key in shown), 400)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
