"""From the records of a study to its tables: means, intervals, comparisons in the same folds, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from fusionkit.experiment.statistics import compare, holm, pareto, summarize
from fusionkit.study.baselines import BASELINES
from fusionkit.study.plan import DENSE, VIEW_DROPOUT, Entry, Study, outcome

#: Seed and fold.
Part = tuple[int, int | None]
#: The records of one contestant.
Records = Mapping[Part, Mapping[str, Any]]

#: The references with which every contestant is compared: name -> overrides.
REFERENCES: dict[str, tuple[str, ...]] = {"dense": DENSE, **{name: (name,) for name in BASELINES}}


def analyse(study: Study) -> list[dict[str, Any]]:
    """Return a row per contestant and data set that has any record, by data set and falling accuracy.

    A row's comparisons use the parts (seed and fold) that both have.  Where a study is complete, these are all.
    """
    records = _records(study)
    rows = []
    for data in study.settings["data"]:
        entries = [entry for entry in study.entries if entry.data == data and (data, entry.overrides) in records]
        rows += _of_one_set(entries, {entry.overrides: records[data, entry.overrides] for entry in entries})
    return rows


def analyse_missing(study: Study) -> list[dict[str, Any]]:
    """Return a row per contestant of the table of missing views and data set, by data set and in the study's order.

    A row has, by the rate of missing views, the accuracies ``without`` view dropout, those ``with`` it, and the
    ``gain``, the second minus the first, over the ``count`` parts that both have.  What was not trained, or refuses
    masks, is None.
    """
    records = _records(study)
    rows: list[dict[str, Any]] = []
    for entry, dropout in study.missing:
        plain = records.get((entry.data, entry.overrides), {})
        dropped = records.get((dropout.data, dropout.overrides), {}) if dropout else {}
        if shared := plain.keys() & dropped.keys():
            plain = {part: plain[part] for part in shared}
        first, then = _by_rate(plain), _by_rate({part: dropped[part] for part in shared})
        if plain:
            share = _share(next(iter(plain.values())))
            rows.append(
                {
                    "data": entry.data,
                    "name": entry.name,
                    "baseline": entry.baseline,
                    "overrides": list(entry.overrides),
                    "once": entry.once,
                    "view_dropout": VIEW_DROPOUT if then else None,
                    "count": len(plain),
                    "without": {rate: _summary(values, share) for rate, values in first.items()},
                    "with": {rate: _summary(then.get(rate, {}), share) for rate in first},
                    "gain": {rate: _against(then.get(rate, {}), values, share) for rate, values in first.items()},
                }
            )
    for data in study.settings["data"]:
        found = [row["gain"] for row in rows if row["data"] == data]
        for rate in found[0] if found else ():
            _adjust([gains[rate] for gains in found])
    return rows


def _by_rate(records: Records) -> dict[str, dict[Part, float]]:
    """Return the accuracies of each part, by the rate of missing views; {} at the rates of an operator that refuses."""
    found: dict[str, dict[Part, float]] = {}
    for part, record in sorted(records.items()):
        for rate, value in {"0": record["metrics"]["accuracy"], **record["robustness"]["missing_rate"]}.items():
            values = found.setdefault(rate, {})
            if value is not None:
                values[part] = float(value)
    return found


def _summary(values: Mapping[Part, float], share: float) -> dict[str, Any] | None:
    return asdict(summarize(list(values.values()), share)) if values else None


def _records(study: Study) -> dict[tuple[str, tuple[str, ...]], dict[Part, Mapping[str, Any]]]:
    """Return the records of all completed jobs, by data set and overrides."""
    records: dict[tuple[str, tuple[str, ...]], dict[Part, Mapping[str, Any]]] = {}
    for job in study.jobs:
        if (found := outcome(job)) is not None:
            records.setdefault((job.entry.data, job.entry.overrides), {})[job.seed, job.fold] = found
    return records


def _of_one_set(entries: Sequence[Entry], records: Mapping[tuple[str, ...], Records]) -> list[dict[str, Any]]:
    rows = []
    dense_l = next((r["l"] for r in records.get(DENSE, {}).values()), None)
    for entry in entries:
        found = dict(sorted(records[entry.overrides].items()))
        first = next(iter(found.values()))
        share = _share(first)
        accuracies = _accuracies(found)
        rows.append(
            {
                "data": entry.data,
                "name": entry.name,
                "baseline": entry.baseline,
                "overrides": list(entry.overrides),
                "once": entry.once,
                **{key: first.get(key) for key in ("fusion", "fabrication", "encoder", "n", "l")},
                "share_of_dense": first["l"] / dense_l if dense_l and "l" in first else None,
                "parameters": first["parameters"],
                **asdict(summarize(list(accuracies.values()), share)),
                "against": {
                    name: _against(accuracies, _accuracies(records.get(overrides, {})), share)
                    for name, overrides in REFERENCES.items()
                    if overrides != entry.overrides
                },
                "robustness": _mean([record["robustness"] for record in found.values()]),
                "seconds": fmean(record["seconds"] for record in found.values()),
                "on_front": False,
                "accuracies": [
                    {"seed": seed, "fold": fold, "accuracy": value} for (seed, fold), value in accuracies.items()
                ],
            }
        )
    for name in REFERENCES:
        _adjust([row["against"].get(name) for row in rows])
    own = [row for row in rows if row["l"] is not None and row["encoder"] in (None, "none")]
    for i in pareto([(row["l"], row["mean"]) for row in own]):
        own[i]["on_front"] = True
    return sorted(rows, key=lambda row: (-row["mean"], row["l"] or 0, row["name"]))


def _share(record: Mapping[str, Any]) -> float:
    """Return the test part's share of all rows."""
    test, training = record["data"]["test_rows"], record["data"]["training_rows"]
    return float(test / (test + training))


def _accuracies(records: Records) -> dict[Part, float]:
    return {part: float(record["metrics"]["accuracy"]) for part, record in records.items()}


def _against(values: Mapping[Part, float], other: Mapping[Part, float], share: float) -> dict[str, Any] | None:
    """Compare accuracies in the parts that both have; None where there is no such part."""
    shared = [part for part in values if part in other]
    if not shared:
        return None
    return {
        **asdict(compare([values[part] for part in shared], [other[part] for part in shared], share)),
        "p_holm": None,
    }


def _adjust(comparisons: Sequence[dict[str, Any] | None]) -> None:
    """Write the p-values adjusted by Holm to comparisons of which each has a p, or none."""
    compared = [one for one in comparisons if one is not None and one["p"] is not None]
    for comparison, adjusted in zip(compared, holm([one["p"] for one in compared]), strict=True):
        comparison["p_holm"] = adjusted


def _mean(found: Sequence[Mapping[str, Mapping[str, float | None]]]) -> dict[str, dict[str, float | None]]:
    """Return the mean of the accuracies of several records, by kind of disturbance; None stays None."""
    return {
        kind: {key: _fmean([one[kind][key] for one in found]) for key in values} for kind, values in found[0].items()
    }


def _fmean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
