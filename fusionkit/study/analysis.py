"""From the records of a study to its table: means, intervals, comparisons in the same folds, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fusionkit.experiment.statistics import compare, holm, pareto, summarize
from fusionkit.study.baselines import BASELINES
from fusionkit.study.plan import DENSE, Entry, Study, outcome

__all__ = ["REFERENCES", "analyse"]

#: Seed and fold.
Part = tuple[int, int]

#: What every contestant is compared with: name -> overrides.
REFERENCES: dict[str, tuple[str, ...]] = {"dense": DENSE, **{name: (name,) for name in BASELINES}}


def analyse(study: Study) -> list[dict[str, Any]]:
    """Return a row per contestant and data set that has any record, by data set and falling accuracy.

    A row's comparisons use the parts (seed and fold) that both have.  Where a study is complete, these are all.
    """
    records: dict[Entry | tuple[str, tuple[str, ...]], dict[Part, Mapping[str, Any]]] = {}
    for job in study.jobs:
        found = outcome(job)
        if found is not None:
            key = (job.entry.data, job.entry.overrides)
            records.setdefault(key, {})[job.seed, job.fold] = found
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
        length = first.get("l")
        rows.append(
            {
                "data": entry.data,
                "name": entry.name,
                "baseline": entry.baseline,
                "overrides": list(entry.overrides),
                "fusion": first.get("fusion"),
                "fabrication": first.get("fabrication"),
                "encoder": first.get("encoder"),
                "n": first.get("n"),
                "l": length,
                "share_of_dense": length / dense_l if dense_l and length is not None else None,
                "parameters": first["parameters"],
                **asdict(summarize(list(accuracies.values()), share)),
                "against": {
                    name: _against(accuracies, records.get(overrides, {}), share)
                    for name, overrides in REFERENCES.items()
                    if overrides != entry.overrides
                },
                "robustness": _mean([record["robustness"] for record in found.values()]),
                "seconds": sum(float(record["seconds"]) for record in found.values()) / len(found),
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
    for row in rows:
        row["on_front"] = False
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
    return {
        kind: {key: sum(one[kind][key] for one in found) / len(found) for key in values}
        for kind, values in found[0].items()
    }
