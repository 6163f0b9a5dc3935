from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fusionkit
from fusionkit import Traits, registry
from fusionkit.cli.study_run import markdown, missing_markdown
from fusionkit.config import compose, config_hash
from fusionkit.errors import ConfigError, RegistryError
from fusionkit.experiment.plots import draw_missing, draw_robustness
from fusionkit.experiment.statistics import compare, holm, summarize
from fusionkit.fusion import ElementwiseFusion
from fusionkit.study import DATA
from fusionkit.study.analysis import analyse, analyse_missing
from fusionkit.study.plan import Entry, Job, Study, contestants, execute, outcome, plan


def make(directory: Path, **changes: Any) -> Study:
    options: dict[str, Any] = {
        "data": ["breast_cancer"],
        "paths": {},
        "repeats": 1,
        "folds": 2,
        "seed": 7,
        "quick": True,
        "missing": False,
        "options": ["train.epochs=1"],
        "extra": [],
        "plugins": [],
    }
    return plan(directory, **{**options, **changes})


@pytest.mark.exhaustive
def test_every_contestant_is_valid_on_every_data_set(tmp_path: Path) -> None:
    made = make(tmp_path, data=list(DATA), quick=False)
    assert made.left_out == []
    assert {entry.data for entry in made.entries} == set(DATA)
    fabrications = {str(entry.config["fabrication"]["name"]) for entry in made.entries if entry.config}
    assert len(fabrications) >= 15
    for data in DATA:
        names = [entry.name for entry in made.entries if entry.data == data]
        assert len(set(names)) == len(names) >= 45


def test_names() -> None:
    config: Mapping[str, Any] = {}
    assert Entry("digits", ("fabrication=dense",), config).name == "dense"
    assert Entry("digits", ("fabrication=lowrank", "fabrication.r=3"), config).name == "lowrank r=3"
    words = ("fusion=mutan", "fabrication=masked", "fabrication.density=0.025", "n=32")
    assert Entry("digits", words, config).name == "mutan masked density=0.025 n=32"
    assert Entry("digits", ("fusion=summation", "model.encoder=linear"), config).name == "summation"
    assert Entry("digits", ("rbf_svm",)).name == "rbf_svm"


def test_budgets_follow_the_data() -> None:
    small, large = contestants(30, 64), contestants(649, 64)
    assert ("fabrication=hashed", "fabrication.K=415") in large
    assert ("fabrication=hashed", "fabrication.K=19") in small


def test_jobs_are_runs_of_fusionkit_run(tmp_path: Path) -> None:
    made = make(tmp_path, repeats=2)
    job = next(job for job in made.jobs if job.entry.name == "lowrank r=2" and (job.seed, job.fold) == (8, 1))
    words = [
        "data=breast_cancer",
        "data.test_size=0.5",
        "train.importance=false",
        "train.epochs=1",
        *job.entry.overrides,
        "seed=8",
        "data.fold=1",
    ]
    assert job.config == compose(words)
    assert job.path == tmp_path / "runs" / config_hash(job.config) / "result.json"
    # Whole repeats first, so that what was done so far can be looked at.
    assert [job.seed for job in made.jobs] == sorted(job.seed for job in made.jobs)
    assert len({job.path for job in made.jobs}) == len(made.jobs) == 2 * 2 * (8 + 2)


def test_what_is_too_large_for_the_data_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionkit.study import plan as study

    monkeypatch.setattr(study, "contestants", lambda *_, **__: [("fabrication=lowrank", "fabrication.r=40")])
    made = make(tmp_path)
    assert all(entry.baseline for entry in made.entries)
    (sentence,) = made.left_out
    where = "fabrication=lowrank fabrication.r=40 on breast_cancer"
    assert sentence.startswith(f"{where}: fusion.parameter_fabrication.r, the rank of lowrank,")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"extra": [["fabrication=lowrnak"]]}, ConfigError),
        ({"options": ["train.epoch=1"]}, ConfigError),
        ({"data": ["mfaet"]}, ConfigError),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_trained(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises((error, RegistryError)):
        make(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_the_data_of_a_path_and_those_of_another_task(tmp_path: Path) -> None:
    """A registered set without widths in a file, read from a path with quotes."""
    seen = []

    def pairs(path: str | None) -> dict[str, Any]:
        seen.append(path)
        x = np.random.default_rng(0).normal(size=(60, 5))
        return {"label": np.arange(60) % 2, "a": x[:, :2], "b": x[:, 2:]}

    plugin = SimpleNamespace(
        __name__="pairs",
        fusionkit_datasets=fusionkit.hookimpl(lambda: {"pairs": fusionkit.DatasetSpec(pairs, task="classification")}),
    )
    plugin.fusionkit_datasets.__name__ = "fusionkit_datasets"
    path = str(tmp_path / 'it\'s "here"')
    with registry.isolated(plugin):
        made = make(tmp_path, data=["pairs"], paths={"pairs": path}, extra=[["model.head=none"]])
        assert {entry.name for entry in made.entries} >= {"dense", "summation", "model.head=none", "rbf_svm"}
        made.jobs = [job for job in made.jobs if job.entry.name in ("dense", "logistic_regression") and not job.fold]
        assert execute(made, workers=1, report=lambda *_: None) == []
        with pytest.raises(ConfigError, match=r"should be for classification; found diabetes, a regression\."):
            make(tmp_path, data=["diabetes"])
    assert set(seen) == {path}
    assert [row["name"] for row in sorted(analyse(made), key=lambda row: row["name"])] == [
        "dense",
        "logistic_regression",
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return a small study that has run."""
    made = make(tmp_path_factory.mktemp("study"), repeats=2, extra=[["fabrication=lowrank", "fabrication.r=1"]])
    assert execute(made, workers=1, report=lambda *_: None) == []
    return made


def test_a_study_resumes(done: Study) -> None:
    calls: list[tuple[str, int]] = []

    def report(job: Job, found: Mapping[str, Any], left: int) -> None:
        assert found["status"] == "completed"
        calls.append((job.entry.name, left))

    assert execute(done, workers=1, report=report) == []
    assert calls == []
    first, last = done.jobs[0], next(job for job in reversed(done.jobs) if job.entry.baseline)
    before = outcome(first)
    assert before is not None
    first.path.write_text('{"schema_version": 1, "sta')
    last.path.unlink()
    assert execute(done, workers=1, report=report) == []
    assert calls == [(first.entry.name, 1), (last.entry.name, 0)]
    after = outcome(first)
    assert after is not None
    assert (after["metrics"], after["history"]) == (before["metrics"], before["history"])


def test_a_record_of_a_release_without_masks_is_made_anew(done: Study, tmp_path: Path) -> None:
    job = done.jobs[0]
    record = json.loads(job.path.read_text())
    del record["robustness"]["missing_rate"]
    older = Job(job.entry, job.seed, job.fold, tmp_path / "result.json")
    older.path.write_text(json.dumps(record))
    assert outcome(job) is not None
    assert outcome(older) is None


def test_a_failure_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    made = make(tmp_path, extra=[["train.lr=1e30"]])
    made.jobs = [job for job in made.jobs if job.entry.name in ("train.lr=1e30", "dense") and job.fold == 0]
    (sentence,) = execute(made, workers=1, report=lambda *_: None)
    assert sentence.startswith("train.lr=1e30 on breast_cancer, seed 7, fold 0: The training loss should be finite")
    assert [row["name"] for row in analyse(made)] == ["dense"]


def test_rows(done: Study) -> None:
    rows = {row["name"]: row for row in analyse(done)}
    assert set(rows) == {entry.name for entry in done.entries}
    dense, lowrank, svm = rows["dense"], rows["lowrank r=2"], rows["rbf_svm"]
    assert (dense["l"], lowrank["l"], svm["l"]) == (1920, 188, None)
    assert lowrank["share_of_dense"] == pytest.approx(188 / 1920)
    paths = {
        (job.seed, job.fold): json.loads(job.path.read_text())["metrics"]["accuracy"]
        for job in done.jobs
        if job.entry.name == "lowrank r=2"
    }
    assert {(one["seed"], one["fold"]): one["accuracy"] for one in lowrank["accuracies"]} == paths
    values = [paths[key] for key in sorted(paths)]
    theirs = [one["accuracy"] for one in dense["accuracies"]]
    assert lowrank["mean"] == pytest.approx(np.mean(values))
    assert lowrank["low"] == pytest.approx(summarize(values, 285 / 569).low)
    expected = compare(values, theirs, 285 / 569)
    assert lowrank["against"]["dense"]["p"] == pytest.approx(expected.p)
    assert lowrank["against"]["dense"]["difference"] == pytest.approx(expected.difference)
    assert set(dense["against"]) == {"logistic_regression", "rbf_svm"}
    assert lowrank["against"]["dense"]["p_holm"] >= lowrank["against"]["dense"]["p"]
    assert set(lowrank["robustness"]["missing"]) == {"mean", "error", "worst"}
    assert not rows["summation"]["on_front"]  # It hides its parameters in encoders.
    assert any(row["on_front"] for row in rows.values())


def test_an_incomplete_study_has_rows_too(done: Study) -> None:
    part = Study(done.directory, done.settings, done.entries, [job for job in done.jobs if job.seed == 7 or job.fold])
    assert {row["count"] for row in analyse(part)} == {3}


def test_markdown(done: Study) -> None:
    lines = markdown(analyse(done)).splitlines()
    assert lines[0] == "### breast_cancer"
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 2 + 9
    assert any("`lowrank r=2`" in line and "| 188 | 9.79 % |" in line for line in table)


# -- missing views -----------------------------------------------------------------------------------------------------


def test_the_table_of_missing_views_has_trainings_with_view_dropout(tmp_path: Path) -> None:
    made = make(tmp_path, extra=[["fabrication=toeplitz", "train.view_dropout=0.3"]])
    dropout = "train.view_dropout=0.5"
    assert {first.overrides: second and second.overrides for first, second in made.missing} == {
        ("fabrication=dense",): ("fabrication=dense", dropout),
        ("fusion=summation", "model.encoder=linear"): ("fusion=summation", "model.encoder=linear", dropout),
        ("fabrication=toeplitz", "train.view_dropout=0.3"): None,  # It has its own.
        ("logistic_regression",): None,
        ("rbf_svm",): None,
    }
    (job,) = (job for job in made.jobs if job.entry.name == "dense train.view_dropout=0.5" and job.fold == 1)
    assert job.config == compose(
        [
            "data=breast_cancer",
            "data.test_size=0.5",
            "train.importance=false",
            "train.epochs=1",
            "train.view_dropout=0.5",
            "seed=7",
            "data.fold=1",
        ]
    )


def test_the_contestants_of_missing_views_alone(tmp_path: Path) -> None:
    made = make(tmp_path, quick=False, missing=True, extra=[["fusion.missing=placeholder"]])
    assert [first for first, _ in made.missing] == made.entries
    assert [first.name for first, second in made.missing if second] == [
        "dense",
        "lowrank r=16",
        "view_lowrank r=4",
        "kronecker_sum R=4",
        "tensor_train r=8",
        "concatenation",
        "summation",
        "maximum",
        "product",
        "parameterized_weighted_summation",
        "missing=placeholder",
    ]
    assert len(made.jobs) == 2 * (2 * 11 + 2)


def test_rows_of_missing_views(done: Study) -> None:
    rows = {row["name"]: row for row in analyse_missing(done)}
    assert list(rows) == ["dense", "summation", "lowrank r=1", "logistic_regression", "rbf_svm"]

    def values(name: str, rate: str) -> list[float]:
        records = [json.loads(job.path.read_text()) for job in done.jobs if job.entry.name == name]
        return [record["robustness"]["missing_rate"][rate] for record in records]

    row, rate, share = rows["lowrank r=1"], "0.7", 285 / 569
    first, then = values("lowrank r=1", rate), values("lowrank r=1 train.view_dropout=0.5", rate)
    assert list(row["without"]) == ["0", "0.1", "0.3", "0.5", "0.7"]
    assert row["without"][rate]["mean"] == pytest.approx(np.mean(first))
    assert row["with"][rate]["low"] == pytest.approx(summarize(then, share).low)
    expected = compare(then, first, share)
    assert row["gain"][rate]["difference"] == pytest.approx(expected.difference)
    assert row["gain"][rate]["p"] == pytest.approx(expected.p)
    p = [rows[name]["gain"][rate]["p"] for name in ("dense", "summation", "lowrank r=1")]
    assert [rows[name]["gain"][rate]["p_holm"] for name in ("dense", "summation", "lowrank r=1")] == holm(p)
    plain = next(row for row in analyse(done) if row["name"] == "lowrank r=1")
    assert row["without"]["0"]["mean"] == plain["mean"]
    svm = rows["rbf_svm"]
    assert (svm["view_dropout"], svm["with"][rate], svm["gain"][rate]) == (None, None, None)
    assert svm["without"][rate]["mean"] == pytest.approx(np.mean(values("rbf_svm", rate)))


def test_missing_views_are_compared_in_the_folds_that_both_trainings_have(done: Study) -> None:
    jobs = [job for job in done.jobs if (job.entry.name, job.seed, job.fold) != ("dense train.view_dropout=0.5", 8, 1)]
    part = Study(done.directory, done.settings, done.entries, jobs, done.missing)
    counts = {row["name"]: row["count"] for row in analyse_missing(part)}
    assert counts == {"dense": 3, "summation": 4, "lowrank r=1": 4, "logistic_regression": 4, "rbf_svm": 4}
    dense = analyse_missing(part)[0]
    assert dense["without"]["0.5"]["count"] == dense["with"]["0.5"]["count"] == dense["gain"]["0.5"]["count"] == 3
    part.jobs = [job for job in jobs if "view_dropout" not in job.entry.name]
    dense = analyse_missing(part)[0]
    assert (dense["count"], dense["view_dropout"], dense["with"]["0.5"]) == (4, None, None)


class Wide(ElementwiseFusion):
    """``sum_i x_i``."""

    traits = Traits(missing="neutral")

    def _fuse(self, x: Any) -> Any:
        return sum(x)


STUDY = """# @package _global_
defaults:
  - override /fusion: narrow
model:
  encoder: linear
  encoder_width: 3
"""


def test_operators_of_plugins_take_part_in_the_first_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "conf_of_sums/experiment/study"
    folder.mkdir(parents=True)
    (folder / "narrow.yaml").write_text(STUDY, encoding="utf-8")
    plugin = SimpleNamespace(
        __name__="sums",
        fusionkit_fusions=fusionkit.hookimpl(lambda: {"wide": Wide, "narrow": Wide}),
        fusionkit_conf=fusionkit.hookimpl(lambda: ["pkg://conf_of_sums"]),
    )
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    plugin.fusionkit_conf.__name__ = "fusionkit_conf"
    with registry.isolated(plugin):
        made = make(tmp_path, plugins=["sums"], repeats=2)
        with pytest.raises(ConfigError, match=r"^The plugin should be among .*; found 'sum'\. Did you mean 'sums'\?$"):
            make(tmp_path, plugins=["sum"])
    assert made.left_out == []
    added = {entry.name: entry for entry in made.entries if entry.once}
    widths = {name: entry.config["model"]["encoder_width"] for name, entry in added.items() if entry.config}
    assert widths == {"narrow": 3, "wide": None}
    assert added["narrow"].overrides == ("+experiment=study/narrow",)
    jobs = [(job.entry.name, job.seed, job.fold) for job in made.jobs if job.entry.once]
    names = ["narrow", "wide", "narrow train.view_dropout=0.5", "wide train.view_dropout=0.5"]
    assert jobs == [(name, 7, fold) for name in names for fold in (0, 1)]
    assert {job.seed for job in made.jobs if job.entry.name == "dense"} == {7, 8}


def test_what_refuses_masks_is_shown_as_refusing(tmp_path: Path) -> None:
    class First(ElementwiseFusion):
        """``A_1``."""

        def _fuse(self, x: Any) -> Any:
            return x[0].clone()

    plugin = SimpleNamespace(__name__="plugin", fusionkit_fusions=fusionkit.hookimpl(lambda: {"first": First}))
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    words = ["fusion=first", "model.encoder=linear"]
    with registry.isolated(plugin):
        made = make(tmp_path, extra=[words, [*words, "fusion.missing=placeholder"]])
        made.jobs = [job for job in made.jobs if job.entry.name.startswith("first")]
        assert len(made.jobs) == 2 * 3
        assert execute(made, workers=1, report=lambda *_: None) == []
    (sentence,) = made.left_out
    assert sentence.startswith("fusion=first model.encoder=linear train.view_dropout=0.5 on breast_cancer: ")
    assert sentence.endswith("fusion.missing=placeholder lets a learned vector stand for an absent view.")
    refusing, placeholder = analyse_missing(made)
    assert refusing["without"]["0"]["count"] == 2
    assert (refusing["without"]["0.5"], refusing["with"]["0"]) == (None, None)
    assert placeholder["with"]["0.5"]["count"] == 2
    plain, _ = analyse(made)
    assert set(plain["robustness"]["missing"].values()) == {None}
    text = missing_markdown([refusing, placeholder])
    assert f"| `first` | 2 | {refusing['without']['0']['mean']:.4f} | refuses | refuses | refuses | refuses |" in text
    draw_missing([refusing, placeholder], tmp_path / "missing.png")
    draw_robustness([{**plain, "fabrication": "dense"}], tmp_path / "robustness.png")


def test_markdown_of_missing_views(done: Study) -> None:
    rows = analyse_missing(done)
    lines = missing_markdown(rows).splitlines()
    assert lines[:3] == ["### breast_cancer", "", "| contestant | folds | 0 | 0.1 | 0.3 | 0.5 | 0.7 |"]
    row, svm = rows[0], rows[-1]
    cell = (
        f"{row['without']['0.7']['mean']:.4f} → {row['with']['0.7']['mean']:.4f} ({row['gain']['0.7']['p_holm']:.2g})"
    )
    assert lines[4].startswith("| `dense` | 4 | ")
    assert lines[4].endswith(f" | {cell} |")
    assert lines[8].startswith(f"| *rbf svm* | 4 | {svm['without']['0']['mean']:.4f} | ")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "+0.0123"), (-0.00005001, "-0.0001"), (-1e-9, "0.0000"), (4e-5, "0.0000"), (0.0, "0.0000")],
)
def test_a_difference_of_zero_has_no_sign(done: Study, value: float, text: str) -> None:
    row = next(row for row in analyse(done) if row["name"] == "toeplitz")
    row["against"] = {"dense": {"difference": value, "p_holm": None}}
    assert f"| {text} |" in markdown([row])


@pytest.mark.exhaustive
def test_workers_give_the_same(done: Study, tmp_path: Path) -> None:
    made = make(tmp_path, repeats=1, quick=True)
    made.jobs = [job for job in made.jobs if job.entry.name in ("dense", "rbf_svm")]
    assert execute(made, workers=2, report=lambda *_: None) == []
    then = {(job.entry.name, job.seed, job.fold): outcome(job) for job in done.jobs}
    for job in made.jobs:
        now, before = outcome(job), then[job.entry.name, job.seed, job.fold]
        assert now is not None
        assert before is not None
        assert (now["metrics"], now["robustness"]) == (before["metrics"], before["robustness"])


def test_a_contestant_without_a_head(tmp_path: Path) -> None:
    study = make(tmp_path, extra=[["model.head=none"], ["fusion=average", "model.encoder=mlp", "model.head=none"]])
    assert [entry.name for entry in study.entries[-4:-2]] == [
        "model.head=none",
        "average model.encoder=mlp model.head=none",
    ]
    extra = ["fusion=concatenation", "model.head=none"]
    with pytest.raises(ConfigError, match=r"should have the width 2, .* found 30"):
        make(tmp_path, extra=[extra])
