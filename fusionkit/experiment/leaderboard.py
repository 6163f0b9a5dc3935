"""The runs below a directory, in groups that differ in seed and fold only, as ``fusionkit leaderboard`` shows them."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionkit._util.text import count_of, one_line, printable
from fusionkit._util.trees import flatten, mapped
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.results import RESULT, read_result
from fusionkit.experiment.statistics import Summary, pareto, summarize

#: Hydra makes this folder in a run directory before the run begins.
_HYDRA = ".hydra"


_IGNORED = frozenset({"seed", "device", "data.path", "data.fold"})
_FABRICATION = "fusion.parameter_fabrication."


@dataclass(frozen=True)
class Run:
    """A record and the path of its file."""

    path: Path
    result: Mapping[str, Any]

    @property
    def accuracy(self) -> float:
        """The accuracy on the test part."""
        return float(self.result["metrics"]["accuracy"])

    @property
    def data(self) -> tuple[str, str, str]:
        """The identity of the data set (runs of two are never averaged), its name, and a short form of the identity."""
        data = self.result.get("data", {})
        name = data.get("name") or "unknown data"
        label = str(data.get("label") or name)
        if digest := data.get("digest"):
            return str(digest), label, str(digest)[:8]
        widths = _canonical(self.result.get("data_dims"))
        return f"{name} {widths}", label, widths

    @property
    def test_share(self) -> float:
        """The share of the rows in the test part; a fifth where the record does not contain it."""
        data = self.result.get("data", {})
        test, training = data.get("test_rows"), data.get("training_rows")
        return float(test / (test + training)) if test and training else 0.2

    @property
    def config(self) -> dict[str, Any]:
        """The config without what may differ within a group: seed, fold, device, and the path of the data."""
        flat = {".".join(path): value for path, value in flatten(self.result.get("config", {}))}
        return {key: value for key, value in flat.items() if key not in _IGNORED and not key.endswith(".device")}

    @property
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
        return _canonical([self.data[0], facts, self.config])


@dataclass
class Group:
    """Runs that differ in seed and fold only.

    Attributes:
        data: the name of the data set.
        runs: at least one, all completed, no two of the same config and seed.
        options: the options that distinguish the group from others that look alike.
        on_front: whether no other group of the data set has fewer parameters l and is as accurate.
    """

    data: str
    runs: list[Run]
    options: str = ""
    on_front: bool = False

    @property
    def first(self) -> Mapping[str, Any]:
        """The record of the first run."""
        return self.runs[0].result

    @property
    def summary(self) -> Summary:
        """Mean, deviation and the 95 % interval, corrected for training parts that overlap."""
        return summarize([run.accuracy for run in self.runs], self.runs[0].test_share)

    @property
    def encoder(self) -> str | None:
        """The encoder in front of the fusion, None without one."""
        found = self.first.get("encoder")
        return None if found == "none" else found

    def to_dict(self) -> dict[str, Any]:
        """Return the row in plain JSON types."""
        summary = self.summary
        seconds = [run.result["seconds"] for run in self.runs if run.result.get("seconds") is not None]
        seeds = {run.result.get("seed") for run in self.runs} - {None}
        return {
            "data": self.data,
            **{key: self.first.get(key) for key in ("fusion", "fabrication", "encoder", "n", "l", "parameters")},
            "options": self.options,
            "runs": len(self.runs),
            "seeds": sorted(seeds),
            "accuracy": summary.mean,
            "std": summary.std,
            "low": summary.low,
            "high": summary.high,
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
class Board:
    """The runs below a directory.

    Attributes:
        directory: the directory that was searched.
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
        """Return the row and the label of each group, for ``plots.draw_leaderboard``."""
        return [{**group.to_dict(), "label": group.label} for group in self.groups]

    def left_out(self) -> Iterator[str]:
        """Yield a line for everything that is not in the table."""
        for run in self.failed:
            yield f"failed: {run.path.parent}: {one_line(str(run.result.get('error')), 400)}"
        for path in self.unfinished:
            yield f"unfinished: {path}: it has no {RESULT}; the run was stopped or is still running"
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
    """Read every ``result.json`` below ``directory``, through links too, and group the runs.

    Raises:
        ConfigError: no such directory.  A record that cannot be used is among the board's problems.
    """
    if not directory.is_dir():
        raise ConfigError(f"The directory of runs should exist; found no directory {directory}.")
    board = Board(directory)
    groups: dict[str, Group] = {}
    seen: set[str] = set()
    for folder in _run_dirs(directory):
        path = folder / RESULT
        if not os.path.lexists(path):
            board.unfinished.append(folder)
            continue
        try:
            run = Run(path, _checked(path))
        except FusionError as error:
            board.problems.append(str(error))
            continue
        digest = run.result.get("config_hash")
        if run.result["status"] == "failed":
            board.failed.append(run)
        elif digest in seen:
            board.repeated += 1
        else:
            if digest is not None:
                seen.add(digest)
            groups.setdefault(run.key(), Group("", [])).runs.append(run)
    board.groups = _named(list(groups.values()))
    return board


def _run_dirs(directory: Path) -> Iterator[Path]:
    """Yield the directories of all runs, each once, sorted, so that the result does not depend on the file system."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(directory, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # A link to a folder that was read, maybe above this one.
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if RESULT in files or _HYDRA in folders:
            yield Path(folder)
        folders[:] = sorted(name for name in folders if name != _HYDRA)


def _checked(path: Path) -> dict[str, Any]:
    """Read a record; one of a completed run should contain an accuracy and l."""
    result = read_result(path)
    texts = {key: value for key, value in result.items() if key != "config"}
    result |= mapped(texts, lambda value: printable(value) if isinstance(value, str) else value, printable)
    if result["status"] != "completed":
        return result
    accuracy = result.get("metrics", {}).get("accuracy")
    if accuracy is None or not 0 <= accuracy <= 1:
        raise FusionError(f"{path} should have a number from 0 to 1 as metrics.accuracy; found {accuracy!r}.")
    if result.get("l") is None:
        raise FusionError(f"{path} should have a non-negative integer as l; found None.")
    return result


def _named(groups: list[Group]) -> list[Group]:
    """Set ``data`` (unique names), ``options`` and ``on_front`` of all groups; return them sorted."""
    shared = Counter(name for _, name, _ in {group.runs[0].data for group in groups})
    alike: dict[str, list[Group]] = {}
    for group in groups:
        _, name, short = group.runs[0].data
        group.data = name if shared[name] == 1 else f"{name} ({short})"
        looks = [group.data, group.runs[0].fabrication, *map(group.first.get, ("fusion", "n", "l", "encoder"))]
        alike.setdefault(_canonical(looks), []).append(group)
    for bucket in alike.values():
        configs = [group.runs[0].config for group in bucket]
        keys = sorted({key for config in configs for key in config})
        differing = [key for key in keys if len({_canonical(config.get(key)) for config in configs}) > 1]
        for group, config in zip(bucket, configs, strict=True):
            group.options = one_line(" ".join(f"{key}={config.get(key)}" for key in differing), 400)
    for name in {group.data for group in groups}:
        # Encoders have parameters too, which l does not count.
        own = [group for group in groups if group.data == name and group.encoder is None]
        for i in pareto([(group.first["l"], group.summary.mean) for group in own]):
            own[i].on_front = True
    return sorted(groups, key=lambda group: (group.data, -group.summary.mean, group.first["l"], group.label))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
