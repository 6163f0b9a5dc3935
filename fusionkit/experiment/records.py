"""The records below a directory, as the leaderboard needs them, with a cache of those that were read before."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fusionkit._util.distribution import version
from fusionkit._util.files import write_atomic
from fusionkit._util.text import printable
from fusionkit.errors import FusionError
from fusionkit.experiment.results import RESULT, checked, checkpoints, parsed, read_result

#: The file beside the runs; without it all records are read once more.
CACHE: Final = ".leaderboard.json"
_SCHEMA_VERSION: Final = 1
#: A cache that is larger takes longer to read than it saves, and would fill the memory.
_MAX_CACHE: Final = 2**30
#: A file that changed this many nanoseconds ago, or less, may change again and keep its times, which have steps.
_SETTLED: Final = 2_000_000_000

#: Hydra makes this folder in a run directory before the run begins.
_HYDRA: Final = ".hydra"
#: The keys of a record that no table and no report shows.
_UNUSED: Final = frozenset({"baseline", "classes", "targets", "confusion", "provenance", "traceback"})
#: The key of a record -> what it is called in tables.
PARTS: Final = {"metrics": "test", "validation": "validation"}
#: A greater number in a record is a mistake; the deviation of two would be infinite.
_MOST: Final = 1e100

#: Of a file: inode, bytes, and when its content and its status changed.
_Stamp = list[int]


def read_records(directory: Path) -> Iterator[tuple[Path, dict[str, Any] | FusionError | None]]:
    """Yield the directory of every run below ``directory``, through links too, sorted, with its record.

    The record lacks what no table shows, and its texts are printable, but those of its config.  It is a ``FusionError``
    where it cannot be used, None where there is none.  Records that were read before, and whose files have not changed
    since, come from the file ``CACHE`` in ``directory``, which is written in the end; what is in it is checked like a
    record.  Where it cannot be written, it is not.
    """
    cache = _read_cache(directory / CACHE)
    new: dict[str, tuple[_Stamp, dict[str, Any]]] = {}
    now, same = time.time_ns(), True
    for folder in _run_dirs(directory):
        path, key = folder / RESULT, str(folder.relative_to(directory))
        if not os.path.lexists(path):
            yield folder, None
            continue
        try:
            stamp = _stamp(path)  # Before the content: where that is newer, the next stamp differs.
            record = _cached(cache.get(key), stamp, path)
            if record is None:
                same, record = False, _usable(read_result(path), path)
        except FusionError as error:
            yield folder, error
            continue
        if now - stamp[2] > _SETTLED:
            new[key] = stamp, record
        yield folder, record
    if new.keys() != cache.keys() or (new and not same):
        content = {"schema_version": _SCHEMA_VERSION, "version": version(), "records": new}
        text = json.dumps(content, separators=(",", ":")).encode()
        with contextlib.suppress(OSError):
            write_atomic(directory / CACHE, lambda temporary: temporary.write_bytes(text))


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:  # ``read_result`` says why.
        return [0, 0, time.time_ns(), 0]
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read_cache(path: Path) -> dict[str, Any]:
    """Return the entries of a cache by directory; none where it is absent, damaged, or from another release."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_CACHE:  # Opening a pipe would wait for a writer.
            return {}
        found = parsed(path.read_bytes())
        if (found["schema_version"], found["version"]) != (_SCHEMA_VERSION, version()):
            return {}
        return dict(found["records"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _cached(entry: Any, stamp: _Stamp, path: Path) -> dict[str, Any] | None:
    """Return the record of an entry of the cache; None if there is none of a file with this stamp."""
    try:
        before, record = entry
        return _usable(checked(record, path), path) if before == stamp else None
    except (TypeError, ValueError):  # ``FusionError`` is one: the cache is not of this program.
        return None


def _run_dirs(directory: Path) -> Iterator[Path]:
    """Yield the directories of all runs, each once, sorted, so that the result does not depend on the file system."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(directory, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # A link to a folder that was read, maybe above this one.
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if RESULT in files or _HYDRA in folders or checkpoints(Path(folder)):
            yield Path(folder)
        folders[:] = sorted(name for name in folders if name != _HYDRA)


def _usable(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return what is needed of a record; one of a completed run should contain l, and its metric for each part that it
    has.
    """
    texts = {key: value for key, value in result.items() if key != "config" and key not in _UNUSED}
    result = {**_printable(texts), "config": result.get("config", {})}
    if result["status"] != "completed":
        return result
    metric = result.get("metric", "accuracy")
    for part in PARTS:
        values = result.get(part) or {metric: None}  # The run has no such part.
        if metric not in values:
            raise FusionError(f"{path} should have a number or null as {part}.{metric}; found none.")
        for name in sorted({metric, "accuracy"} & values.keys()):
            low, high = limits(name)
            if (value := values[name]) is not None and not low <= value <= high:
                raise FusionError(
                    f"{path} should have a number from {low:g} to {high:g} as {part}.{name}; found {value!r}."
                )
    if result.get("l") is None:
        raise FusionError(f"{path} should have a non-negative integer as l; found None.")
    return result


def _printable(tree: Any) -> Any:
    """Return plain JSON with all texts printable."""
    if type(tree) is str:
        return printable(tree)
    if type(tree) is dict:
        return {printable(key): _printable(value) for key, value in tree.items()}
    return [_printable(value) for value in tree] if type(tree) is list else tree


def limits(metric: str) -> tuple[float, float]:
    """Return the least and the greatest number that a metric can be."""
    if metric.startswith(("rmse", "mae", "log_loss")):
        return 0.0, _MOST
    return (-_MOST if metric.startswith("r2") else 0.0), 1.0
