"""The table of data sets: which sets are in it, their jobs, and what their rows have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fusionkit
from fusionkit import FusionError, registry
from fusionkit.cli.study_sets import sets_markdown
from fusionkit.config import compose
from fusionkit.errors import ConfigError
from fusionkit.experiment.statistics import summarize
from fusionkit.study import sets
from fusionkit.study.plan import Study, execute, outcome
from fusionkit.study.sets import analyse_sets, plan_sets


def arrays(path: str | None, label: Any, **more: Any) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(60, 5))
    return {"label": label, "a": x[:, :2], "b": x[:, 2:], **more}


def given(path: str | None) -> dict[str, Any]:
    """Return two classes with a given test part of 20 rows."""
    return arrays(path, np.arange(60) % 2, split=np.repeat(["train", "test"], [40, 20]))


def amounts(path: str | None) -> dict[str, Any]:
    return arrays(path, np.random.default_rng(1).normal(size=(60, 2)))


def tags(path: str | None) -> dict[str, Any]:
    return arrays(path, np.random.default_rng(1).integers(2, size=(60, 3)))


def absent(path: str | None) -> dict[str, Any]:
    if path is None:
        raise FusionError("The data set absent should be installed by `install it`; found none.")
    raise FusionError(f"data.path should be a file; found {path}.")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    specs = {
        "given": fusionkit.DatasetSpec(given, task="classification"),
        "amounts": fusionkit.DatasetSpec(amounts, task="regression"),
        "tags": fusionkit.DatasetSpec(tags, task="multilabel"),
        "absent": fusionkit.DatasetSpec(absent, task="classification"),
    }
    plugin = SimpleNamespace(__name__="several", fusionkit_datasets=fusionkit.hookimpl(lambda: specs))
    plugin.fusionkit_datasets.__name__ = "fusionkit_datasets"
    with registry.isolated(plugin):
        yield


def make(directory: Path, *names: str, **changes: Any) -> tuple[Study, dict[str, dict[str, Any]]]:
    options: dict[str, Any] = {
        **{"data": list(names), "paths": {}, "repeats": 1, "folds": 3, "seed": 4, "quick": False, "missing": False},
        **{"options": ["train.epochs=1"], "extra": [["n=8"]], "plugins": []},
    }
    return plan_sets(directory, **{**options, **changes})


def test_jobs(tmp_path: Path) -> None:
    study, about = make(tmp_path, "given", "amounts")
    jobs = [(job.entry.data, job.entry.name, job.seed, job.fold) for job in study.jobs]
    assert jobs == [
        *(("given", name, 4, None) for name in ("default", "n=8", "logistic_regression", "rbf_svm")),
        *(("amounts", name, 4, fold) for name in ("default", "n=8", "ridge", "rbf_svr") for fold in range(3)),
    ]
    shared = ["data=amounts", f"data.test_size={1 / 3!r}", "train.importance=false", "train.epochs=1"]
    shared += ["seed=4", "data.fold=2"]
    assert study.jobs[6].config == compose(shared)
    assert about["given"] == {
        **{"task": "classification", "metric": "accuracy", "rows": 60, "views": {"a": 2, "b": 3}},
        **{"classes": 2, "targets": 0, "test": "given"},
    }
    assert about["amounts"]["metric"] == "r2"
    assert (about["amounts"]["targets"], about["amounts"]["test"]) == (2, "3 folds")


def test_what_is_not_there_is_left_out_and_said(tmp_path: Path) -> None:
    study, about = make(tmp_path, "absent", "tags", "given")
    assert list(about) == ["given"]
    assert study.left_out == [
        "absent: The data set absent should be installed by `install it`; found none.",
        "tags: a set should be for classification or regression; found multilabel.",
    ]
    with pytest.raises(ConfigError, match=r"^data\.path should be a file; found /.*x\.$"):
        make(tmp_path, "absent", paths={"absent": "/x"})
    with pytest.raises(ConfigError):
        make(tmp_path, "npz", paths={"npz": "x.npz"})


def test_no_references_where_there_are_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "REFERENCE_ROWS", 30)
    study, _ = make(tmp_path, "amounts")
    assert [entry.name for entry in study.entries] == ["default", "n=8"]


def test_rows(tmp_path: Path) -> None:
    study, about = make(tmp_path, "given", "amounts")
    assert execute(study, workers=1, report=lambda *_: None) == []
    first, second = analyse_sets(study, about)
    assert (first["data"], second["data"]) == ("given", "amounts")
    assert {one["count"] for one in first["results"]} == {1}
    records = [outcome(job) for job in study.jobs if (job.entry.data, job.entry.name) == ("amounts", "ridge")]
    values = [record["metrics"]["r2"] for record in records if record]
    (ridge,) = (one for one in second["results"] if one["name"] == "ridge")
    expected = summarize(values, 1 / 3, (-np.inf, 1.0))
    assert (ridge["count"], ridge["mean"], ridge["low"]) == (3, expected.mean, expected.low)
    assert expected.low is not None
    assert expected.low < 0  # An r2 may be below 0, and its interval too.
    header, rule, *lines = sets_markdown([first, second]).splitlines()[2:]
    assert header == "| data | metric | rows | views | test part | default | `n=8` | linear | RBF SVM |"
    assert {line.count("|") for line in (header, rule, *lines)} == {10}
    assert lines[0].startswith("| given | accuracy | 60 | 2 + 3 | given | 0.")
    assert f"| {ridge['mean']:.4f} ± {ridge['std']:.4f} |" in lines[1]


def test_what_failed_is_empty(tmp_path: Path) -> None:
    study, about = make(tmp_path, "amounts", extra=[["train.lr=1e30"]], folds=2)
    study.jobs = [job for job in study.jobs if not job.entry.baseline]
    assert len(execute(study, workers=1, report=lambda *_: None)) == 2
    rows = analyse_sets(study, about)
    assert [one["name"] for one in rows[0]["results"]] == ["default"]
    assert sets_markdown(rows).splitlines()[-1].endswith(" |  |  |")
    assert sets_markdown([]) == "### Data sets\n"
