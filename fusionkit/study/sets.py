"""The table of data sets: what the default, further configs and scikit-learn reach on each set that is there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from fusionkit.config import compose
from fusionkit.config.options import data_options
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.data import OWN, Dataset, load_data
from fusionkit.experiment.statistics import summarize
from fusionkit.study.baselines import BASELINES, REGRESSORS
from fusionkit.study.plan import Entry, Settings, Study, job_of, outcome, shared_overrides

#: task -> the references, a linear one and one with an RBF kernel.
REFERENCES: dict[str, tuple[str, ...]] = {"classification": tuple(BASELINES), "regression": tuple(REGRESSORS)}
#: The references are left out where there are more rows to train on: a kernel method takes hours there.
REFERENCE_ROWS = 20_000


def plan_sets(directory: Path, **settings: Unpack[Settings]) -> tuple[Study, dict[str, dict[str, Any]]]:
    """List the jobs of the table of data sets; nothing is trained.

    A set that is not there is left out, unless its path is given.

    Returns:
        The study, whose entries have no overrides for the default, and what is known about each set, by name.

    Raises:
        ConfigError: options, data or a further config that do not exist, or a set whose path is wrong.
    """
    study, about = Study(directory, settings), {}
    for name in settings["data"]:
        node = compose(shared_overrides(name, settings))["data"]
        if node["name"] in OWN:
            raise ConfigError(f"The data of a study should be named sets; found {name}.")
        try:
            data = load_data(node, task="auto")
        except FusionError as error:
            if name in settings["paths"]:
                raise ConfigError(str(error)) from error
            study.left_out.append(f"{name}: {error}")
            continue
        if data.task.name not in REFERENCES:
            study.left_out.append(f"{name}: a set should be for {' or '.join(REFERENCES)}; found {data.task.name}.")
            continue
        about[name] = _enter(study, name, node, data)
    return study, about


def _enter(study: Study, name: str, node: Mapping[str, Any], data: Dataset) -> dict[str, Any]:
    """Add the jobs on one data set; return what is known about it."""
    settings, given = study.settings, "split" in data.roles
    shared = shared_overrides(name, settings)
    entries = [Entry(name, words, compose([*shared, *words])) for words in ((), *map(tuple, settings["extra"]))]
    if data.rows * (1 - data_options(node).test_size) <= REFERENCE_ROWS:
        entries += [Entry(name, (one,), node=node, disturbed=False) for one in REFERENCES[data.task.name]]
    study.entries += entries
    folds = [None] if given else range(settings["folds"])
    study.jobs += [job_of(study, settings["seed"], entry, fold) for entry in entries for fold in folds]
    return {
        "task": data.task.name,
        "metric": data.task.metric(None),
        "rows": data.rows,
        "views": dict(zip(data.views, data.dims, strict=True)),
        "classes": len(data.task.classes),
        "targets": len(data.task.targets),
        "test": "given" if given else f"{settings['folds']} folds",
    }


def analyse_sets(study: Study, about: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per data set: what is known about it, and ``results``.

    A result has the name and the overrides of a contestant, whether it is a ``baseline``, and count, mean, sd and
    interval of the metric over the folds; a fold in which the metric is undefined does not count.
    """
    rows = []
    for name, known in about.items():
        found = []
        for entry in (entry for entry in study.entries if entry.data == name):
            records = [record for job in study.jobs if job.entry is entry and (record := outcome(job)) is not None]
            values = [record["metrics"][known["metric"]] for record in records]
            values = [value for value in values if value is not None]
            if values:
                found.append({"name": entry.name, "overrides": list(entry.overrides), "baseline": entry.baseline})
                found[-1] |= _summary(values, records[0]["data"], known["metric"])
        rows.append({"data": name, **known, "results": found})
    return rows


def _summary(values: list[float], data: Mapping[str, Any], metric: str) -> dict[str, Any]:
    share = data["test_rows"] / (data["test_rows"] + data["training_rows"])
    return asdict(summarize(values, share, (-math.inf if metric == "r2" else 0.0, 1.0)))
