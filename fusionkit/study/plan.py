"""The studies of accuracy against l and with missing views: contestants, jobs, and their execution, to be resumed.

Every training is a run as ``fusionkit run`` makes it, with its record below ``DIR/runs``, so that
``fusionkit leaderboard DIR`` reads a study like any other directory of runs.
"""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from hydra.core.override_parser.types import Quote, QuotedString

from fusionkit import registry
from fusionkit._util.files import write_json
from fusionkit._util.text import error_line
from fusionkit.config import build, compose, config_hash
from fusionkit.config.fits import check_outputs, check_view_dropout
from fusionkit.config.nodes import yaml_file
from fusionkit.config.options import validate
from fusionkit.errors import ConfigError, FusionError, nearest
from fusionkit.experiment import results
from fusionkit.experiment.data import OWN, Dataset, load_data
from fusionkit.experiment.job import run_recorded
from fusionkit.study.baselines import BASELINES, run_baseline, run_reference

#: Budgets of the fabrications whose l is free, as shares of the dense matrix.
_SHARES = (0.005, 0.01, 0.025, 0.1)
#: The other fabrications, and the option that sets their rank with its values.
_RANKS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("lowrank", "r", (1, 2, 4, 8, 16)),
    ("view_lowrank", "r", (1, 2, 4)),
    ("kronecker_sum", "R", (2, 4, 8)),
    ("dual_lowrank_kronecker", "r", (1, 2, 4)),
    ("tensor_train", "r", (1, 2, 4, 8)),
    ("block_circulant", "b", (8, 16, 32)),
    ("khatri_rao", "r", (1, 2)),
)
_ONE_SIZE = ("kronecker", "lowrank_kronecker", "monarch", "toeplitz", "duplicated_padding", "random_matrix_adaption")
#: Operators other than the parameterized concatenation, with encoders in front: they need views of one width.
_OPERATORS = ("summation", "maximum", "product", "parameterized_weighted_summation")

#: Chooses the config with which a plugin says how its operator takes part.
_STUDY = "+experiment=study/"

DENSE = ("fabrication=dense",)

#: The contestants of the table of missing views, which are trained with view dropout as well; added ones are too.
_MISSING = (
    DENSE,
    ("fabrication=lowrank", "fabrication.r=16"),
    ("fabrication=view_lowrank", "fabrication.r=4"),
    ("fabrication=kronecker_sum", "fabrication.R=4"),
    ("fabrication=tensor_train", "fabrication.r=8"),
    ("fusion=concatenation",),
    *((f"fusion={name}", "model.encoder=linear") for name in _OPERATORS),
)
VIEW_DROPOUT = 0.5


@dataclass(frozen=True)
class Entry:
    """A contestant on one data set.

    Attributes:
        data: the name of the data set.
        overrides: its overrides of ``fusionkit run``; for a baseline its name alone.
        config: the config of its runs except ``seed`` and ``data.fold``; None for a baseline.
        once: whether it is trained in the first repeat only.
        node: for a baseline, the node ``data`` except ``fold``.
        disturbed: whether it is measured with missing and noisy views too.
    """

    data: str
    overrides: tuple[str, ...]
    config: Mapping[str, Any] | None = None
    once: bool = False
    node: Mapping[str, Any] = field(default_factory=dict)
    disturbed: bool = True

    @property
    def baseline(self) -> bool:
        """Whether it is a classifier of scikit-learn."""
        return self.config is None

    @property
    def name(self) -> str:
        """The name in tables."""
        heads, options = [], []
        for word in self.overrides:
            key, _, value = word.partition("=")
            if key in ("fusion", "fabrication") or not value:
                heads.append(value or key)
            elif word.startswith(_STUDY):
                heads.append(word.removeprefix(_STUDY))
            elif word != "model.encoder=linear":
                options.append(f"{key.removeprefix('fabrication.').removeprefix('fusion.')}={value}")
        return " ".join([*heads, *options]) or "default"


@dataclass(frozen=True)
class Job:
    """One training: an entry, the seed of its folds, the fold (None: the data name the test part), and the path of its
    record.
    """

    entry: Entry
    seed: int
    fold: int | None
    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """The config of the run; a baseline has none."""
        assert self.entry.config is not None
        config = copy.deepcopy(dict(self.entry.config))
        return {**config, "seed": self.seed, "data": {**config["data"], "fold": self.fold}}


class Settings(TypedDict):
    """The settings of a study, in plain JSON types.

    Attributes:
        data: names of data sets.
        paths: ``data.path`` of those that are not installed, by name.
        repeats: how often the rows are shuffled and cut into folds, by the seeds from ``seed`` on.
        folds: test parts of each repeat.
        seed: the first one.
        quick: a handful of contestants.
        missing: only the contestants of the table of missing views.
        options: overrides for all of them, as ``train.epochs=20``.
        extra: further contestants.
        plugins: names of plugins whose operators are contestants too, in the first repeat only.
    """

    data: list[str]
    paths: dict[str, str]
    repeats: int
    folds: int
    seed: int
    quick: bool
    missing: bool
    options: list[str]
    extra: list[list[str]]
    plugins: list[str]


@dataclass
class Study:
    """A whole study, as planned.

    Attributes:
        directory: the folder of the study.
        settings: its settings.
        entries: all contestants on all data sets.
        jobs: their trainings, in the order of execution: complete repeats first.
        missing: the contestants of the table of missing views, each with the entry of its training with view dropout;
            None for a baseline, for one with a view dropout of its own, and for an operator that refuses masks.
        left_out: contestants that a data set is too small for, each with the reason.
    """

    directory: Path
    settings: Settings
    entries: list[Entry] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    missing: list[tuple[Entry, Entry | None]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def contestants(width: int, n: int, *, quick: bool = False) -> list[tuple[str, ...]]:
    """Return the contestants of the study as overrides of ``fusionkit run``.

    Args:
        width: D, the sum of the widths of the views.
        n: output width of the fusion.
        quick: a handful only.
    """
    dense = n * width

    def free(share: float) -> Iterator[tuple[str, ...]]:
        size = max(1, round(share * dense))
        yield "fabrication=hashed", f"fabrication.K={size}"
        yield "fabrication=fourier", f"fabrication.l={size}"
        yield "fabrication=masked", f"fabrication.density={share:g}"

    if quick:
        return [
            DENSE,
            ("fabrication=lowrank", "fabrication.r=2"),
            ("fabrication=kronecker_sum", "fabrication.R=2"),
            ("fabrication=tensor_train", "fabrication.r=2"),
            ("fabrication=toeplitz",),
            ("fusion=summation", "model.encoder=linear"),
        ]
    return [
        DENSE,
        *((f"fabrication={name}", f"fabrication.{option}={value}") for name, option, many in _RANKS for value in many),
        *((f"fabrication={name}",) for name in _ONE_SIZE),
        ("fabrication=tensor_train", "fabrication.r=2", "fabrication.cores=4"),
        *(found for share in _SHARES for found in free(share)),
        ("fusion=concatenation",),
        *((f"fusion={name}", "model.encoder=linear") for name in _OPERATORS),
    ]


def operators(plugin: str) -> list[tuple[str, ...]]:
    """Return the fusions of a plugin as contestants, behind linear encoders, or as its config for the study says.

    That is ``experiment/study/NAME.yaml`` among the plugin's configs, for an operator that needs other widths.

    Raises:
        ConfigError: the plugin does not exist, or has no fusions.
    """
    records = registry.records("fusion")
    found = [record.key for record in records if record.plugin == plugin]
    if not found:
        known = list(dict.fromkeys(record.plugin for record in records))
        should = f"be among the plugins that have fusions, {', '.join(known)}"
        raise ConfigError(f"The plugin should {should}; found {plugin!r}.{nearest(plugin, known)}")
    return [
        (f"{_STUDY}{name}",) if yaml_file("experiment", f"study/{name}") else (f"fusion={name}", "model.encoder=linear")
        for name in found
    ]


def plan(directory: Path, **settings: Unpack[Settings]) -> Study:
    """Compose the config of every contestant and list the jobs; nothing is trained.

    Raises:
        ConfigError, RegistryError: options, data or an extra contestant that do not exist.
    """
    study = Study(directory, settings)
    for name in settings["data"]:
        _enter(study, name)
    seeds = range(settings["seed"], settings["seed"] + settings["repeats"])
    entries = [*study.entries, *(entry for _, entry in study.missing if entry)]
    study.jobs = [
        job_of(study, seed, entry, fold)
        for seed, entry, fold in product(seeds, entries, range(settings["folds"]))
        if seed == settings["seed"] or not entry.once
    ]
    return study


def _enter(study: Study, data: str) -> None:
    """Add the contestants on one data set."""
    settings = study.settings
    shared = shared_overrides(data, settings)
    base = compose(shared)
    if base["data"]["name"] in OWN:
        raise ConfigError("The data of a study should be named sets; found a file.")
    found = load_data(base["data"], base["dims"], base["task"])
    if found.task.name != "classification":
        should = f"The data of a study of accuracy should be for classification; found {data}, a {found.task.name}"
        raise ConfigError(f"{should}.  fusionkit study --sets has its metric.")
    extra = [tuple(one) for one in settings["extra"]]
    once = [one for plugin in settings["plugins"] for one in operators(plugin)]
    chosen = [*contestants(sum(found.dims), int(base["n"]), quick=settings["quick"]), *extra, *once]
    in_missing = {*_MISSING, *extra, *once}
    for overrides in chosen:
        if settings["missing"] and overrides not in in_missing:
            continue
        try:
            entry = _entry(found, shared, overrides, once=overrides in once)
        except FusionError as error:
            if overrides in extra:
                raise ConfigError(str(error)) from error
            study.left_out.append(f"{' '.join(overrides)} on {data}: {error}")
            continue
        study.entries.append(entry)
        if overrides in in_missing:
            study.missing.append((entry, _with_dropout(study, found, shared, entry)))
    baselines = [Entry(data, (baseline,), node=base["data"]) for baseline in BASELINES]
    study.entries += baselines
    study.missing += [(entry, None) for entry in baselines]


def shared_overrides(data: str, settings: Settings) -> list[str]:
    """Return the overrides of all contestants on a data set."""
    path = settings["paths"].get(data)
    given = [] if path is None else [f"data.path={QuotedString(path, Quote.double).with_quotes()}"]
    folds = f"data.test_size={1 / settings['folds']!r}"
    # Nothing of a study shows the importance of the views; an option may turn it on.
    return [f"data={data}", *given, folds, "train.importance=false", *settings["options"]]


def _entry(data: Dataset, shared: Sequence[str], overrides: tuple[str, ...], *, once: bool) -> Entry:
    """Return a contestant; ``once``: of the first repeat only.

    Raises:
        FusionError: the data are too small for it, or its operator refuses the masks of its view dropout.
    """
    tree = compose([*shared, *overrides])
    config = validate(tree)
    # On the meta device, so that impossible sizes are refused.
    # Without a head the widths follow from the number of outputs, which the data tell.
    headless = config.model.head == "none"
    outputs = data.task.outputs if headless else 0
    fusion = build({**config.fusion_node(data.dims, outputs), "device": "meta"}, "fusion")
    check_view_dropout(fusion, config)
    check_outputs(fusion, config.model, outputs)
    return Entry(data.name, overrides, tree, once)


def _with_dropout(study: Study, data: Dataset, shared: Sequence[str], entry: Entry) -> Entry | None:
    """Return the training of a contestant with view dropout; None if it has its own, or refuses masks."""
    assert entry.config is not None
    if entry.config["train"]["view_dropout"]:
        return None
    overrides = (*entry.overrides, f"train.view_dropout={VIEW_DROPOUT}")
    try:
        return _entry(data, shared, overrides, once=entry.once)
    except FusionError as error:
        study.left_out.append(f"{' '.join(overrides)} on {entry.data}: {error}")
        return None


def job_of(study: Study, seed: int, entry: Entry, fold: int | None) -> Job:
    """Return the training of an entry, with the path of its record."""
    name = f"{entry.data}-{entry.name}-{study.settings['folds']}-{seed}-{fold}.json"
    made = Job(entry, seed, fold, study.directory / ("baselines" if entry.disturbed else "references") / name)
    if entry.baseline:
        return made
    return replace(made, path=study.directory / "runs" / config_hash(made.config) / results.RESULT)


def outcome(job: Job) -> dict[str, Any] | None:
    """Return the record of a completed job; None for any other, and for that of a release without masks."""
    try:
        found = results.read_result(job.path)
    except FusionError:
        return None
    measured = not job.entry.disturbed or "missing_rate" in (found.get("robustness") or {})
    return found if found["status"] == "completed" and measured else None


def execute(study: Study, *, workers: int, report: Callable[[Job, Mapping[str, Any], int], None]) -> list[str]:
    """Do all jobs that are not done yet; return a sentence for each failed one.

    Args:
        study: the study.
        workers: number of processes, one thread each.
        report: called after each job with the job, its record, and the number of jobs left.

    Raises:
        KeyboardInterrupt: completed jobs are kept; the next call continues from there.
    """
    todo = [job for job in study.jobs if outcome(job) is None]
    failed = []
    for left, (job, found) in zip(range(len(todo) - 1, -1, -1), _results(study, todo, workers), strict=True):
        if found["status"] != "completed":
            where = f"{job.entry.name} on {job.entry.data}, seed {job.seed}, fold {job.fold}"
            failed.append(f"{where}: {found['error']}")
        report(job, found, left)
    return failed


def _results(study: Study, todo: Sequence[Job], workers: int) -> Iterator[tuple[Job, Mapping[str, Any]]]:
    if workers == 1 or len(todo) < 2:
        for job in todo:
            yield job, _work(job)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        futures = {pool.submit(_work, job): job for job in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Use one thread; the parent process handles an interruption."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(job: Job) -> Mapping[str, Any]:
    """Do one job and return its record, also of a failure: the other jobs go on."""
    if job.entry.baseline:
        return _run_baseline(job)
    return run_recorded(job.config, job.path.parent, quiet=True, record_only=True)


def _run_baseline(job: Job) -> dict[str, Any]:
    node = {**job.entry.node, "fold": job.fold}
    try:
        found = (run_baseline if job.entry.disturbed else run_reference)(job.entry.name, node, job.seed)
    except (ValueError, RuntimeError, OSError) as error:  # Of scikit-learn, or of the data.
        return {"status": "failed", "error": error_line(error)}
    record = {"schema_version": results.SCHEMA_VERSION, "status": "completed", "error": None, **found}
    job.path.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.path, record)
    return record
