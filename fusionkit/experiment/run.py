"""One run: from a checked config to a trained model, its picture and its record."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionkit import registry
from fusionkit._util.files import write_atomic, write_json
from fusionkit._util.text import count_of
from fusionkit._util.trees import to_json
from fusionkit.config.fits import check_takes_masks, check_view_dropout
from fusionkit.config.hashing import config_hash
from fusionkit.config.options import RunConfig
from fusionkit.config.safe import build
from fusionkit.core import first_call
from fusionkit.errors import ConfigError, DimsError
from fusionkit.experiment import ranks, results
from fusionkit.experiment.checkpoint import Checkpoint, Checkpoints, First
from fusionkit.experiment.data import OWN, Dataset, load_data
from fusionkit.experiment.importance import Importance
from fusionkit.experiment.load import save
from fusionkit.experiment.metrics import confusion_matrix
from fusionkit.experiment.model import FusionModel, Network, Scaler
from fusionkit.experiment.source import Array, Rows
from fusionkit.experiment.splits import Parts, split
from fusionkit.experiment.state import exclusive
from fusionkit.experiment.summary import print_data, print_summary, run_title
from fusionkit.experiment.tensors import affordable, standardized, training_part
from fusionkit.experiment.trained import Trained
from fusionkit.experiment.training import History, Monitored, Training, seeded, train
from fusionkit.fusion import Fusion, check_device

#: Where views stay in their files: the most rows that the curve is measured on.
_SHOWN = 100_000


@exclusive()
def run_job(
    config: RunConfig,
    run_dir: Path,
    *,
    quiet: bool = False,
    record_only: bool = False,
    draw: bool = True,
    report: Callable[[float], None] | None = None,
    given: tuple[Dataset, Parts] | None = None,
    found: Checkpoint | None = None,
) -> dict[str, Any]:
    """Train the model of ``config``; write its files, ``result.json`` last.

    Args:
        config: of the job, already checked.
        run_dir: created if needed; the files of an earlier run in it are removed first.
        quiet: show neither progress nor summary.
        record_only: write the record alone.
        draw: write the pictures too; ``pictures.draw_absent`` does that later.
        report: called after each epoch with the fraction of the training that is done, maybe in another process.
        given: what ``read`` returns for the config; None reads it.
        found: the checkpoint to go on from.

    Returns:
        The record that ``result.json`` holds.

    Raises:
        FusionError, ConfigError, RegistryError: the run failed; the caller records it with ``results.write_failed``.
    """
    begun = time.perf_counter() - (0.0 if found is None else found.facts.seconds)
    results.start(run_dir, keep_checkpoints=found is not None)
    data, parts = given or read(config)
    if not quiet and data.name in OWN:
        print_data(data, parts, sys.stderr)
    checkpoints = _checkpoints(config, data, run_dir, begun, found)
    run = Run(config, data, parts, None if quiet else f", in {results.shown(run_dir)}", report, checkpoints)
    run.train()
    ranks.release()
    result = run.record()
    if not record_only:
        run.keep(run_dir)
        if draw:
            run.draw(result, run_dir)
    result["seconds"] = round(time.perf_counter() - begun, 3)
    write_json(run_dir / results.RESULT, result)
    results.remove_checkpoints(run_dir)
    results.notify_plugins(result, run_dir)
    if not quiet:
        print_summary(result, run_dir)
    return result


def _checkpoints(
    config: RunConfig, data: Dataset, run_dir: Path, begun: float, found: Checkpoint | None
) -> Checkpoints | None:
    if found is None and config.train.checkpoint_every is None:
        return None
    return Checkpoints(run_dir, config.train.checkpoint_every, about(config, data), begun, found=found)


def about(config: RunConfig, data: Dataset) -> dict[str, Any]:
    """Return what a checkpoint says of its run."""
    tree = config.tree
    versions = results.versions(tree)
    return {"config": to_json(tree), "config_hash": config_hash(tree), "data": data.digest, "versions": versions}


def read(config: RunConfig) -> tuple[Dataset, Parts]:
    """Return the data of a config and its parts.

    Raises:
        FusionError, ConfigError: data that cannot be used, or options that do not fit them.
    """
    data = load_data(config.tree["data"], config.dims, config.task)
    return data, split(data, config.data, config.seed)


class Run:
    """The training of a run, once, or with ``train.refit`` twice, and what is measured then.

    Args:
        config: of the run.
        data: all rows.
        parts: of them.
        where: the end of the title above the progress bar; None shows neither title nor bar.
        report: as for ``run_job``.
        checkpoints: to write, and the one to go on from.

    Raises:
        ConfigError: a metric that the task does not have; patience or refit without a validation part.
    """

    def __init__(
        self,
        config: RunConfig,
        data: Dataset,
        parts: Parts,
        where: str | None,
        report: Callable[[float], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.checkpoints = checkpoints
        self.config, self.data, self.parts, self.where, self.report = config, data, parts, where, report
        self.metric = data.task.metric(config.metric)
        self.validation: dict[str, float | None] | None = None
        self.whole: float | None = None
        for key, value in (("patience", config.train.patience), ("refit", config.train.refit)):
            if value and not len(parts.validation):
                advice = "data.validation_size=0.2 makes one."
                raise ConfigError(f"train.{key} should be given with a validation part; found none.  {advice}")

    def train(self) -> None:
        """Train the model; with a validation part, measure that too."""
        parts = self.parts
        ranks.connect(self.config.train, self.config.device)
        if not len(parts.validation):
            self.model, self.history = self._fit(parts.training, parts.test)
            return
        if (first := self._first()) is not None:  # A run that was stopped in its second training.
            self.history, self.validation = History(**first.history.model_dump()), first.validation
        else:
            self.model, self.history = self._fit(parts.training, parts.validation, chooses=True)
            target = self.data.target[parts.validation]
            self.validation = self.model.task.measure(self.trained.predicted(parts.validation), target)
        if self.config.train.refit:
            rows = last_rows(self.config, parts)
            self.model, _ = self._fit(rows, rows[:0], stop=self.history.best_epoch)

    @property
    def trained(self) -> Trained:
        """The model of the last training."""
        return Trained(self.config, self.model, self.fitted, self.history)

    def _first(self) -> First | None:
        """Return what the first training gave, where a checkpoint of the second was found."""
        found = None if self.checkpoints is None else self.checkpoints.found
        return None if found is None else found.facts.first

    def _checkpoints(self, stop: int | None) -> Checkpoints | None:
        """Return the checkpoints of the first training, or of the second one, which has a ``stop``."""
        if self.checkpoints is None:
            return None
        found = self.checkpoints.found if (self._first() is None) == (stop is None) else None
        first = None if stop is None else {"history": asdict(self.history), "validation": self.validation}
        return replace(self.checkpoints, first=first, found=found)

    def _fit(
        self, rows: Rows, shown: Rows, *, chooses: bool = False, stop: int | None = None
    ) -> tuple[FusionModel, History]:
        """Return a model that was trained on ``rows``, and its history.

        Args:
            rows: the training part.
            shown: the rows to measure after every epoch.
            chooses: whether they choose the epoch.
            stop: the number of epochs; None: all.
        """
        config, rows = self.config, weighted(rows, self.data)
        self.fitted = data = self.data.fitted(rows, shown=self.where is not None)
        model = _untrained(config, data, rows)
        checkpoints, progress = self._checkpoints(stop), None
        if self.where is not None:
            again = "" if stop is None else f", again with the validation part for {count_of(stop, 'epoch')}"
            title = run_title(model.describe()["fusion"]["name"], _fabrication(model.fusion), data.label, config.seed)
            after = "" if checkpoints is None or checkpoints.found is None else f", after {checkpoints.found.place}"
            progress = f"training {title}{again}{after}{self.where}"
        measured = None
        if len(shown):
            shown = affordable(shown, _SHOWN, data, config)
            measured = Monitored(standardized(model, data, shown), data.target[shown], self.metric, chooses)
        part, target = training_part(model, data, rows), data.target[rows]
        report = self.report
        if report is not None and config.train.refit:
            report = partial(_report_half, report, stop is not None)
        recipe = (config.train, config.seed, progress, report, stop, checkpoints)
        training = Training(model.task, part, target, measured, *recipe)
        return model, train(model.network, training, check_device(config.device))

    def record(self) -> dict[str, Any]:
        """Measure the trained model, and return the record of the run."""
        config, data, model, parts = self.config, self.data, self.model, self.parts
        fusion, task, target = model.fusion, model.task, data.target[parts.test]
        self.tested = self.trained.predicted(parts.test) if len(target) else np.empty((0, task.outputs))
        baseline = np.broadcast_to(task.baseline(data.target[parts.training]), self.tested.shape)
        sizes = {f"{name}_rows": len(rows) for name, rows in parts.named().items()}
        return results.record(
            config.tree,
            status="completed",
            fusion=model.describe()["fusion"]["name"],
            fabrication=_fabrication(fusion),
            dims=list(fusion.dims or ()),
            data_dims=data.dims,
            n=fusion.n,
            l=fusion.calculate_l(),
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            task=task.name,
            metric=self.metric,
            metrics=task.measure(self.tested, target),
            validation=self.validation,
            baseline=task.measure(baseline, target),
            best_epoch=self.history.best_epoch,
            config_hash=config_hash(config.tree),
            data={**self.fitted.describe(), **sizes},
            classes=task.classes or None,
            targets=task.targets or None,
            confusion=self._confusion(target),
            robustness=self.trained.robustness(parts.test) if len(target) else None,
            weights=self.trained.weights(parts.test) if len(target) else None,
            views=self._importance() if config.train.importance else None,
            history=self._history(),
            provenance=results.provenance(config.tree),
        )

    def _confusion(self, target: Array) -> list[list[int]] | None:
        """Return the test rows by true and predicted class; None where the task has no classes."""
        if self.data.strata is None or not len(target):
            return None
        return confusion_matrix(target, self.tested.argmax(-1), len(self.data.classes)).tolist()  # type: ignore[no-any-return]

    def _history(self) -> dict[str, Any]:
        """Return the curves; that of the validation part has its name."""
        history = self.history
        name = f"validation_{self.metric}" if len(self.parts.validation) else self.metric
        return {"loss": history.loss, **({name: history.score} if history.score else {}), "lr": history.lr}

    def _importance(self) -> Importance | None:
        """Return how much each view matters; None without rows to measure it on."""
        rows = unseen_rows(self.config, self.parts)
        if not len(rows):
            return None
        self.whole, found = self.trained.importance(rows, self.metric)
        return found

    def keep(self, run_dir: Path) -> None:
        """Write the model and the row numbers of the parts."""
        save(self.model, run_dir / results.MODEL)
        write_atomic(run_dir / results.ROWS, partial(_write_rows, self.parts.named(), self.data))

    def draw(self, result: Mapping[str, Any], run_dir: Path) -> None:
        """Write the pictures."""
        from fusionkit.experiment import run_picture

        run_picture.draw_pictures(result, run_dir, (self.tested, self.data.target[self.parts.test]), self.whole)


def last_rows(config: RunConfig, parts: Parts) -> Rows:
    """Return the rows of the last training: those of the training part, and for a refit those of validation too."""
    return np.concatenate([parts.training, parts.validation]) if config.train.refit else parts.training


def weighted(rows: Rows, data: Dataset) -> Rows:
    """Return the rows whose weight is not 0; the others should change nothing."""
    weight = data.roles.get("weight")
    return rows if weight is None else rows[weight[rows] > 0]


def unseen_rows(config: RunConfig, parts: Parts) -> Rows:
    """Return the test part, or else a validation part that the model was not trained on; maybe no rows."""
    return parts.test if len(parts.test) or config.train.refit else parts.validation


def _report_half(report: Callable[[float], None], second: bool, done: float) -> None:
    """Report the fraction of two trainings that is done, from that of one."""
    report((second + done) / 2)


def _write_rows(named: Mapping[str, Rows], data: Dataset, path: Path) -> None:
    """Write the row numbers of each part, in its file, and the ids of its rows if there are any."""
    arrays: dict[str, Any] = {}
    for name, rows in named.items():
        before = 0 if data.test_rows is None or name != "test" else int(data.test_rows[0])
        arrays[name] = rows - before
        if "id" in data.roles:
            arrays[f"{name}_id"] = data.roles["id"][rows].astype(str)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _untrained(config: RunConfig, data: Dataset, training_rows: Rows) -> FusionModel:
    """Return the model with its initial values; scaler and task are fitted to the training rows."""
    # Built on the CPU, so that the initial values are the same for every device.
    with seeded(config.seed, torch.device("cpu")):
        model = build_model(config, data)
    # Verify the contract of the operator, which may come from a plugin, at its first call.
    first_call.attach(model.fusion)
    check_view_dropout(model.fusion, config)
    if data.mask is not None:
        check_takes_masks(model.fusion, f"rows of {data.label} lack a view")
    if data.moments is not None:
        model.scaler.take(data.moments)
    else:
        known = None if data.mask is None else data.mask[training_rows]
        model.scaler.fit((view[training_rows] for view in data.views.values()), known)
    model.task = data.task.fitted(data.target[training_rows])
    return model


def build_model(config: RunConfig, data: Dataset) -> FusionModel:
    """Build the untrained model of a config for ``data``, on the CPU, from the global random state.

    Raises:
        ConfigError, DimsError, RegistryError: the config does not describe a model.
    """
    node, given = config.fusion_node(data.dims, data.task.outputs), config.fusion.dims
    dims = node["dims"]
    if given is not None and list(given) not in (data.dims, dims):
        raise DimsError(f"fusion.dims should be {dims}, the widths that the fusion sees; found {list(given)}.")
    # Messages should name the key that the user set.
    keys = {"fusion.parameter_fabrication": "fabrication"} if takes_group(config) else None
    fusion: Fusion = build({**node, "device": None}, "fusion", keys)
    if not fusion.require_parameters and fusion.calculate_l():
        raise ConfigError("fusion.require_parameters should be true for training; found false.")
    network = Network(fusion, data.dims, data.task.outputs, config.model, config.train.input_dropout)
    scaler = Scaler(list(data.views), data.dims, data.impute)
    return FusionModel(scaler, network, data.task, data.table)


def takes_group(config: RunConfig) -> bool:
    """Whether the fusion has the fabrication of the group; a preset, or an override, may have its own."""
    return bool(config.tree["fusion"].get("parameter_fabrication") == config.tree["fabrication"])


def _fabrication(fusion: Fusion) -> str | None:
    """Return the name of the operator's fabrication; None if it takes none."""
    if "parameter_fabrication" not in inspect.signature(type(fusion)).parameters:
        return None
    node = fusion.to_config().get("parameter_fabrication")
    name = node.get("name") if isinstance(node, Mapping) else node
    return "dense" if name is None else registry.resolve("fabrication", str(name)).key
