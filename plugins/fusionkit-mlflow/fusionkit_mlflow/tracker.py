"""Logs the result of a run to MLflow."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from posixpath import normpath
from typing import Any

__all__ = ["log"]

#: Limits of MLflow: entities per call, and the lengths of a value and of a name.
_BATCH, _VALUE, _NAME = 100, 5000, 250
#: The database if MLFLOW_TRACKING_URI is not set.
_DATABASE = "mlflow.db"


def log(result: Mapping[str, Any], run_dir: Path | None = None) -> str:
    """Log one finished run and return its id in MLflow.

    Args:
        result: the contents of ``result.json``.
        run_dir: the directory of the run; None logs only the result.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    # Otherwise MLflow logs every step of the creation of a database.
    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri, lock = _store()
    ended = int(time.time() * 1000)
    begun = ended - int(1000 * (result.get("seconds") or 0))
    numbers, texts, notes = list(_metrics(result)), dict(_params(result)), dict(_tags(result))
    names = _names(key for key, _, _ in numbers)
    metrics = [Metric(names[key], value, ended, step) for key, value, step in numbers]
    params = [Param(name, texts[key]) for key, name in _names(texts).items()]
    tags = [RunTag(name, notes[key]) for key, name in _names(notes).items()]
    with lock:
        client = MlflowClient(uri)
        run = client.create_run(_experiment(client), start_time=begun, run_name=_title(result)).info.run_id
        status = "FAILED"  # Also if something here fails: otherwise MLflow would show the run as running for ever.
        try:
            for start in range(0, max(len(metrics), len(params), len(tags)), _BATCH):
                batch = slice(start, start + _BATCH)
                client.log_batch(run, metrics[batch], params[batch], tags[batch])
            _log_files(client, run, result, run_dir)
            status = "FINISHED" if result.get("status") == "completed" else "FAILED"
        finally:
            client.set_terminated(run, status, end_time=ended)
    return str(run)


def _store() -> tuple[str, AbstractContextManager[Any]]:
    """Return the URI of the store and, for the SQLite file, a lock against other processes."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given, nullcontext()
    from filelock import FileLock

    database = Path(_DATABASE).absolute()
    return f"sqlite:///{database}", FileLock(f"{database}.lock")


def _experiment(client: Any) -> str:
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "fusionkit"
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # Another process was faster.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _log_files(client: Any, run: str, result: Mapping[str, Any], run_dir: Path | None) -> None:
    files = sorted(file for file in run_dir.iterdir() if file.is_file()) if run_dir is not None else []
    for file in files:
        if not file.name.startswith("."):
            client.log_artifact(run, str(file))
    if not any(file.name == "result.json" for file in files):
        client.log_dict(run, dict(result), "result.json")


def _title(result: Mapping[str, Any]) -> str:
    fabrication = f" ({result['fabrication']})" if result.get("fabrication") else ""
    return f"{result.get('fusion')}{fabrication}, seed {result.get('seed')}"


def _metrics(result: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Yield name, value and step of every number in the result."""
    single = {
        **(result.get("metrics") or {}),
        **{f"validation.{key}": value for key, value in (result.get("validation") or {}).items()},
        **{key: result.get(key) for key in ("l", "n", "parameters", "seconds")},
        **{f"robustness.{key}": value for key, value in _flat(result.get("robustness") or {})},
    }
    for key, value in single.items():
        if _is_number(value):
            yield key, float(value), 0
    for key, curve in (result.get("history") or {}).items():
        for epoch, value in enumerate(curve, 1):
            if _is_number(value):
                yield f"history/{key}", float(value), epoch


def _params(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in _flat(result.get("config") or {}):
        yield key, str(value)[:_VALUE]


def _tags(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    provenance = result.get("provenance") or {}
    git = provenance.get("git") or {}
    tags = {
        "fusionkit.config_hash": result.get("config_hash"),
        "fusionkit.error": result.get("error"),
        "fusionkit.data": (result.get("data") or {}).get("digest"),
        "fusionkit.python": provenance.get("python"),
        "fusionkit.platform": provenance.get("platform"),
        "mlflow.source.git.commit": git.get("commit"),
        **{f"fusionkit.version.{name}": version for name, version in (provenance.get("versions") or {}).items()},
    }
    for key, value in tags.items():
        if value is not None:
            yield key, str(value)[:_VALUE]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _name(key: str) -> str:
    """Return the key with an underscore for each character that MLflow does not allow in a name.

    MLflow takes names for paths in normal form: nothing like ``a//b``, ``a/../b``, ``/a`` or ``a/``.
    """
    name = re.sub(r"[^\w./ :-]", "_", key, flags=re.ASCII)[:_NAME]
    return (
        name
        if normpath(name) == name and not name.startswith(("/", "..")) and name != "."
        else re.sub(r"/|^\.+", "_", name)
    )


def _names(keys: Iterable[str]) -> dict[str, str]:
    """Return the name of each key; of those that MLflow's alphabet would make equal, all but one get a number."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for key in sorted(dict.fromkeys(keys), key=lambda key: _name(key) != key):
        name, number = _name(key), 1
        while name in taken:
            number += 1
            name = f"{_name(key)[: _NAME - len(str(number)) - 1]}_{number}"
        names[key] = name
        taken.add(name)
    return names


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
