"""From the records of a study to its table: means, intervals, comparisons in the same folds, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from fusionkit.experiment.statistics import compare, holm, pareto, summarize
from fusionkit.study.baselines import BASELINES
from fusionkit.study.plan import DENSE, Entry, Study, outcome

#: Seed and fold.
Part = tuple[int, int]

#: The references with which every contestant is compared: name -> overrides.
REFERENCES: dict[str, tuple[str, ...]] = {"dense": DENSE, **{name: (name,) for name in BASELINES}}


def analyse(study: Study) -> list[dict[str, Any]]:
    """Return a row per contestant and data set that has any record, by data set and falling accuracy.

    A row's comparisons use the parts (seed and fold) that both have.  Where a study is complete, these are all.
    """
    records: dict[tuple[str, tuple[str, ...]], dict[Part, Mapping[str, Any]]] = {}
    for job in study.jobs:
        if (found := outcome(job)) is not None:
            records.setdefault((job.entry.data, job.entry.overrides), {})[job.seed, job.fold] = found
    rows = []
    for data in study.settings["data"]:
        entries = [entry for entry in study.entries if entry.data == data and (data, entry.overrides) in records]
        rows += _of_one_set(entries, {entry.overrides: records[data, entry.overrides] for entry in entries})
    return rows


def _of_one_set(
    entries: Sequence[Entry], records: Mapping[tuple[str, ...], Mapping[Part, Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    rows = []
    dense_l = next((r["l"] for r in records.get(DENSE, {}).values()), None)
    for entry in entries:
        found = dict(sorted(records[entry.overrides].items()))
        first = next(iter(found.values()))
        share = first["data"]["test_rows"] / (first["data"]["test_rows"] + first["data"]["training_rows"])
        accuracies = {part: float(record["metrics"]["accuracy"]) for part, record in found.items()}
        rows.append(
            {
                "data": entry.data,
                "name": entry.name,
                "baseline": entry.baseline,
                "overrides": list(entry.overrides),
                **{key: first.get(key) for key in ("fusion", "fabrication", "encoder", "n", "l")},
                "share_of_dense": first["l"] / dense_l if dense_l and "l" in first else None,
                "parameters": first["parameters"],
                **asdict(summarize(list(accuracies.values()), share)),
                "against": {
                    name: _against(accuracies, records.get(overrides, {}), share)
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
        compared = [row["against"][name] for row in rows if (row["against"].get(name) or {}).get("p") is not None]
        for comparison, adjusted in zip(compared, holm([one["p"] for one in compared]), strict=True):
            comparison["p_holm"] = adjusted
    own = [row for row in rows if row["l"] is not None and row["encoder"] in (None, "none")]
    for i in pareto([(row["l"], row["mean"]) for row in own]):
        own[i]["on_front"] = True
    return sorted(rows, key=lambda row: (-row["mean"], row["l"] or 0, row["name"]))


def _against(
    accuracies: Mapping[Part, float], other: Mapping[Part, Mapping[str, Any]], share: float
) -> dict[str, Any] | None:
    shared = [part for part in accuracies if part in other]
    if not shared:
        return None
    theirs = [float(other[part]["metrics"]["accuracy"]) for part in shared]
    return {**asdict(compare([accuracies[part] for part in shared], theirs, share)), "p_holm": None}


def _mean(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    return {kind: {key: fmean(one[kind][key] for one in found) for key in values} for kind, values in found[0].items()}
