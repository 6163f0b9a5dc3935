"""The runs below a directory, in groups that differ in seed and fold only, as ``fusionkit leaderboard`` shows them."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionkit._util.trees import flatten
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.results import RESULT, read_result
from fusionkit.experiment.statistics import Summary, pareto, summarize

__all__ = ["Board", "Group", "Run", "read_board"]

#: Hydra makes it in the directory of a run before that begins.
_HYDRA = ".hydra"


@dataclass(frozen=True)
class Run:
    """One record that could be read."""

    path: Path
    result: Mapping[str, Any]

    @property
    def completed(self) -> bool:
        """Whether it ended well."""
        return bool(self.result["status"] == "completed")

    @property
    def accuracy(self) -> float:
        """The accuracy on the test part."""
        return float(self.result["metrics"]["accuracy"])

    @property
    def data(self) -> tuple[str, str, str]:
        """What tells data sets apart (runs of two are never averaged), their name, and a short form of the former."""
        data = self.result.get("data")
        data = data if isinstance(data, Mapping) else {}
        name = data.get("name") or "unknown data"
        shown = data.get("label") or name
        digest, widths = data.get("digest"), _canonical(self.result.get("data_dims"))
        return (str(digest), str(shown), str(digest)[:8]) if digest else (f"{name} {widths}", str(shown), widths)

    @property
    def test_share(self) -> float:
        """The share of the rows that were held out; a fifth where the record does not say."""
        data = self.result.get("data")
        test, training = (data.get("test_rows"), data.get("training_rows")) if isinstance(data, Mapping) else (0, 0)
        if isinstance(test, int) and isinstance(training, int) and test > 0 and training > 0:
            return test / (test + training)
        return 0.2

    @property
    def config(self) -> dict[str, Any]:
        """The config without what may differ within a group: seed, fold, device, and the place of the data."""
        config = self.result.get("config")
        flat = {".".join(path): value for path, value in flatten(config)} if isinstance(config, Mapping) else {}
        return {key: value for key, value in flat.items() if key not in _IGNORED and not key.endswith(".device")}

    @property
    def fabrication(self) -> str:
        """The fabrication with the options that were given."""
        name = self.result.get("fabrication")
        options = {
            key.removeprefix(_FABRICATION): value
            for key, value in self.config.items()
            if key.startswith(_FABRICATION) and key != f"{_FABRICATION}name" and value is not None
        }
        shown = ", ".join(f"{key}={value}" for key, value in sorted(options.items()))
        return f"{name or '-'}{f' ({shown})' if shown else ''}"

    def key(self) -> str:
        """What the runs of a group share."""
        facts = [self.result.get(key) for key in ("fusion", "fabrication", "n", "l", "dims", "encoder", "parameters")]
        return _canonical([self.data[0], facts, self.config])


_IGNORED = frozenset({"seed", "device", "data.path", "data.fold"})
_FABRICATION = "fusion.parameter_fabrication."


@dataclass
class Group:
    """The runs that differ in seed and fold only.

    Attributes:
        data: the name of the data set.
        runs: at least one, all completed, no two of the same config and seed.
        options: what tells the group from others that look alike.
        on_front: whether no other group of the data set has fewer parameters l and is as accurate.
    """

    data: str
    runs: list[Run]
    options: str = ""
    on_front: bool = False

    @property
    def accuracy(self) -> float:
        """The mean accuracy."""
        return statistics.fmean(run.accuracy for run in self.runs)

    @property
    def std(self) -> float | None:
        """The standard deviation over the runs (n - 1 in the denominator); None for a single one."""
        return statistics.stdev(run.accuracy for run in self.runs) if len(self.runs) > 1 else None

    @property
    def summary(self) -> Summary:
        """Mean, deviation and the 95 % interval, corrected for training parts that overlap."""
        return summarize([run.accuracy for run in self.runs], self.runs[0].test_share)

    @property
    def encoder(self) -> str | None:
        """The encoder in front of the fusion, None without one."""
        found = self.runs[0].result.get("encoder")
        return None if found in (None, "none") else str(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the row in plain JSON types."""
        first, summary = self.runs[0].result, self.summary
        seconds = [run.result["seconds"] for run in self.runs if isinstance(run.result.get("seconds"), int | float)]
        return {
            "data": self.data,
            "fusion": first.get("fusion"),
            "fabrication": first.get("fabrication"),
            "encoder": first.get("encoder"),
            "n": first.get("n"),
            "l": first.get("l"),
            "parameters": first.get("parameters"),
            "options": self.options,
            "runs": len(self.runs),
            "seeds": sorted({seed for run in self.runs if isinstance(seed := run.result.get("seed"), int)}),
            "accuracy": self.accuracy,
            "std": self.std,
            "low": summary.low,
            "high": summary.high,
            "on_front": self.on_front,
            "seconds": statistics.fmean(seconds) if seconds else None,
            "paths": [str(run.path.parent) for run in self.runs],
        }

    @property
    def label(self) -> str:
        """What the picture calls the group."""
        first = self.runs[0]
        parts = [
            str(first.result.get("fusion")),
            first.fabrication if first.result.get("fabrication") else "",
            f"n={first.result.get('n')}",
            f"encoder={self.encoder}" if self.encoder else "",
            self.options,
        ]
        return " ".join(part for part in parts if part)


@dataclass
class Board:
    """What was found below a directory.

    Attributes:
        directory: where the runs were looked for.
        groups: by data set, the best first.
        failed: runs that failed.
        unfinished: directories of runs without a record: stopped before their end, or still running.
        problems: files that could not be used, each with a sentence.
        repeated: the number of runs left out because another has the same config and seed.
    """

    directory: Path
    groups: list[Group] = field(default_factory=list)
    failed: list[Run] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repeated: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "schema_version": 1,
            "rows": [group.to_dict() for group in self.groups],
            "failed": [{"path": str(run.path.parent), "error": run.result.get("error")} for run in self.failed],
            "unfinished": [str(path) for path in self.unfinished],
            "problems": self.problems,
            "repeated": self.repeated,
        }

    def points(self) -> list[dict[str, Any]]:
        """Return what ``plots.draw_leaderboard`` draws: data, label, l, accuracy and std of each group."""
        return [
            {"data": group.data, "label": group.label, "l": group.runs[0].result["l"], "accuracy": group.accuracy}
            | {"std": group.std}
            for group in self.groups
        ]

    def left_out(self) -> Iterator[str]:
        """Yield a line for everything that is not in the table."""
        for run in self.failed:
            yield f"failed: {run.path.parent}: {run.result.get('error')}"
        for path in self.unfinished:
            yield f"unfinished: {path}: it has no {RESULT}; the run was stopped, or goes on"
        for problem in self.problems:
            yield f"left out: {problem}"
        if self.repeated:
            runs = "run" if self.repeated == 1 else "runs"
            yield f"left out: {self.repeated} repeated {runs}, of the same config and seed as another."

    def place(self, group: Group) -> str:
        """Return where the runs of a group lie, seen from the directory: the first one, and how many more."""
        first = group.runs[0].path.parent
        place = str(first.relative_to(self.directory)) if first.is_relative_to(self.directory) else str(first)
        return place if len(group.runs) == 1 else f"{place} (+{len(group.runs) - 1})"


def read_board(directory: Path) -> Board:
    """Read every ``result.json`` below ``directory``, through links too, and group the runs.

    Raises:
        ConfigError: no such directory.  A record that cannot be used is among the board's problems.
    """
    if not directory.is_dir():
        raise ConfigError(f"The directory of runs should exist; found no directory {directory}.")
    board = Board(directory)
    groups: dict[str, Group] = {}
    seen: set[str] = set()
    for path in _run_dirs(directory):
        path /= RESULT
        if not os.path.lexists(path):
            board.unfinished.append(path.parent)
            continue
        try:
            run = Run(path, _checked(path))
        except FusionError as error:
            board.problems.append(str(error))
            continue
        if not run.completed:
            board.failed.append(run)
            continue
        digest = run.result.get("config_hash")
        if isinstance(digest, str) and digest in seen:
            board.repeated += 1
            continue
        seen.add(str(digest))
        groups.setdefault(run.key(), Group("", [])).runs.append(run)
    board.groups = _named(list(groups.values()))
    return board


def _run_dirs(directory: Path) -> Iterator[Path]:
    """Yield the directories of all runs, each once, sorted, so that the result does not depend on the file system."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(directory, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # A link to what was read, or around in a circle.
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if RESULT in files or _HYDRA in folders:
            yield Path(folder)
        folders[:] = sorted(name for name in folders if name != _HYDRA)


def _checked(path: Path) -> dict[str, Any]:
    """Return a record with everything that the board needs of a completed run."""
    result = read_result(path)
    if result["status"] != "completed":
        return result
    metrics = result.get("metrics")
    accuracy = metrics.get("accuracy") if isinstance(metrics, Mapping) else None
    if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not math.isfinite(accuracy):
        raise FusionError(f"{path} should have a number as metrics.accuracy; found {accuracy!r}.")
    if type(result.get("l")) is not int or result["l"] < 0:
        raise FusionError(f"{path} should have a non-negative integer as l; found {result.get('l')!r}.")
    return result


def _named(groups: list[Group]) -> list[Group]:
    """Give groups the names of their data, unique, and the options that tell them apart; sort them."""
    shared = Counter(name for _, name, _ in {group.runs[0].data for group in groups})
    alike: dict[str, list[Group]] = {}
    for group in groups:
        _, name, short = group.runs[0].data
        group.data = name if shared[name] == 1 else f"{name} ({short})"
        first = group.runs[0].result
        looks = [group.data, group.runs[0].fabrication, *(first.get(key) for key in ("fusion", "n", "l", "encoder"))]
        alike.setdefault(_canonical(looks), []).append(group)
    for bucket in alike.values():
        configs = [group.runs[0].config for group in bucket]
        keys = sorted({key for config in configs for key in config})
        differing = [key for key in keys if len({_canonical(config.get(key)) for config in configs}) > 1]
        for group, config in zip(bucket, configs, strict=True):
            group.options = " ".join(f"{key}={config.get(key)}" for key in differing)
    for name in {group.data for group in groups}:
        # Encoders learn too, and l does not count them.
        own = [group for group in groups if group.data == name and group.encoder is None]
        for i in pareto([(group.runs[0].result["l"], group.accuracy) for group in own]):
            own[i].on_front = True
    return sorted(groups, key=lambda group: (group.data, -group.accuracy, group.runs[0].result["l"], group.label))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
