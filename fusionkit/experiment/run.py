"""One run: from a checked config to a trained model, its picture and its record."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionkit import registry
from fusionkit._util.files import write_atomic, write_json
from fusionkit._util.tables import print_table
from fusionkit.config.fits import check_takes_masks, check_view_dropout
from fusionkit.config.hashing import config_hash
from fusionkit.config.options import RunConfig
from fusionkit.config.safe import build
from fusionkit.core import first_call
from fusionkit.errors import ConfigError, DimsError, FusionError
from fusionkit.experiment import results
from fusionkit.experiment.data import Dataset, Rows, load_data, split
from fusionkit.experiment.load import save
from fusionkit.experiment.metrics import confusion_matrix, metrics
from fusionkit.experiment.model import FusionModel, Network, Scaler
from fusionkit.experiment.robustness import Mask, Views, robustness
from fusionkit.experiment.state import exclusive
from fusionkit.experiment.training import Part, Task, seeded, threads, train
from fusionkit.fusion import Fusion, check_device


@exclusive()
def run_job(
    config: RunConfig,
    run_dir: Path,
    *,
    quiet: bool = False,
    record_only: bool = False,
    report: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Train the model of ``config``; write ``model.safetensors``, ``curve.png`` and, last, ``result.json``.

    Args:
        config: of the job, already checked.
        run_dir: created if needed; the files of an earlier run in it are removed first.
        quiet: show neither progress nor summary.
        record_only: write neither the model nor the picture.
        report: called after each epoch with the fraction of the training that is done, maybe in another process.

    Returns:
        The record that ``result.json`` holds.

    Raises:
        FusionError, ConfigError, RegistryError: the run failed; the caller records it with ``results.write_failed``.
    """
    begun = time.perf_counter()
    results.start(run_dir)
    device = check_device(config.device)
    data = load_data(config.tree["data"], config.dims)
    training_rows, test_rows = split(data, seed=config.seed, test_size=config.data.test_size, fold=config.data.fold)
    model = _untrained(config, data, training_rows)
    title = _title(model.fusion.to_config()["name"], _fabrication(model.fusion), data.label, config.seed)
    progress = None if quiet else f"training {title}, in {results.shown(run_dir)}"
    training, test = (_standardized(model, data, rows) for rows in (training_rows, test_rows))
    history = train(model.network, Task(training, test, config.train, config.seed, progress, report), device)
    result = _record(config, model, data, training_rows, test_rows)
    result["history"] = asdict(history)
    if not record_only:
        _keep(model, result, run_dir)
    result["seconds"] = round(time.perf_counter() - begun, 3)
    write_json(run_dir / results.RESULT, result)
    results.notify_plugins(result, run_dir)
    if not quiet:
        _summary(result, run_dir)
    return result


def _untrained(config: RunConfig, data: Dataset, training_rows: Rows) -> FusionModel:
    """Return the model with its initial values, and with a scaler that is fitted on the training rows."""
    # Built on the CPU, so that the initial values are the same for every device.
    with seeded(config.seed, torch.device("cpu")):
        model = build_model(config, data)
    # Verify the contract of the operator, which may come from a plugin, at its first call.
    first_call.attach(model.fusion)
    check_view_dropout(model.fusion, config)
    if data.mask is not None:
        check_takes_masks(model.fusion, f"rows of {data.label} lack a view")
    known = None if data.mask is None else data.mask[training_rows]
    model.scaler.fit([view[training_rows] for view in data.views.values()], known)
    return model


def _record(
    config: RunConfig, model: FusionModel, data: Dataset, training_rows: Rows, test_rows: Rows
) -> dict[str, Any]:
    """Measure a trained model on the test rows, and return its record."""
    with threads(model.network, config.train, torch.device("cpu")):
        measured, confusion = _measure(model, data, test_rows, config.train.epochs)
        disturbed = _robustness(model, data, test_rows, config.seed)
    fusion = model.fusion
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
        metrics=measured,
        config_hash=config_hash(config.tree),
        data={**data.describe(), "training_rows": len(training_rows), "test_rows": len(test_rows)},
        classes=data.classes,
        confusion=confusion,
        robustness=disturbed,
        provenance=results.provenance(config.tree),
    )


def _keep(model: FusionModel, result: Mapping[str, Any], run_dir: Path) -> None:
    """Write the model and the picture."""
    from fusionkit.experiment.plots import draw_run

    save(model, run_dir / results.MODEL)
    write_atomic(run_dir / results.CURVE, lambda path: draw_run(result, path))


def build_model(config: RunConfig, data: Dataset) -> FusionModel:
    """Build the untrained model of a config for ``data``, on the CPU, from the global random state.

    Raises:
        ConfigError, DimsError, RegistryError: the config does not describe a model.
    """
    node = config.tree["fusion"]
    dims, given = config.fusion_dims(data.dims), config.fusion.dims
    if given is not None and list(given) not in (data.dims, dims):
        raise DimsError(f"fusion.dims should be {dims}, the widths that the fusion sees; found {list(given)}.")
    # Messages should name the key that the user set.
    keys = {"fusion.parameter_fabrication": "fabrication"} if takes_group(config) else None
    fusion: Fusion = build({**node, "dims": dims, "device": None}, "fusion", keys)
    if not fusion.require_parameters and fusion.calculate_l():
        raise ConfigError("fusion.require_parameters should be true for training; found false.")
    network = Network(fusion, data.dims, len(data.classes), config.model, config.train.input_dropout)
    return FusionModel(Scaler(list(data.views), data.dims, data.impute), network, data.classes)


def takes_group(config: RunConfig) -> bool:
    """Whether the fusion has the fabrication of the group; a preset, or an override, may have its own."""
    return bool(config.tree["fusion"].get("parameter_fabrication") == config.tree["fabrication"])


def _standardized(model: FusionModel, data: Dataset, rows: Rows) -> Part:
    views = model.scaler([np.ascontiguousarray(view[rows]) for view in data.views.values()])
    return Part([view for view in views if view is not None], torch.from_numpy(data.target[rows]), _mask(data, rows))


def _mask(data: Dataset, rows: Rows) -> Tensor | None:
    """Return which views of the rows are present, (m, k); None if all views of all data are."""
    return None if data.mask is None else torch.from_numpy(data.mask[rows])


def _measure(
    model: FusionModel, data: Dataset, test_rows: Rows, epochs: int
) -> tuple[dict[str, float], list[list[int]]]:
    """Return metrics and confusion matrix (rows: true classes) on the test rows, by the whole model on the CPU."""
    try:
        logits = model.evaluate([view[test_rows] for view in data.views.values()], _mask(data, test_rows)).double()
    except FusionError as error:
        raise FusionError(f"{str(error).rstrip('.')} after epoch {epochs}, the last.") from error
    target, predicted = data.target[test_rows], logits.argmax(-1).numpy()
    confusion = confusion_matrix(target, predicted, len(data.classes))
    probabilities = logits.softmax(-1).numpy()[np.arange(len(target)), target]
    return metrics(confusion, probabilities), confusion.tolist()


@torch.no_grad()
def _robustness(model: FusionModel, data: Dataset, test_rows: Rows, seed: int) -> dict[str, dict[str, float | None]]:
    """Return the accuracy of the test part with views missing and noisy."""
    part = _standardized(model, data, test_rows)
    views = {name: view.numpy() for name, view in zip(data.views, part.views, strict=True)}

    def predict(chosen: Views, mask: Mask | None) -> np.ndarray[Any, Any]:
        given = [torch.from_numpy(view).to(model.network.dtype) for view in chosen]
        logits = model.network(given, mask=None if mask is None else torch.from_numpy(mask))
        return np.asarray(logits.argmax(-1).numpy())

    mask = None if data.mask is None else data.mask[test_rows]
    refuses = not model.fusion.takes_masks
    return robustness(predict, views, data.target[test_rows], seed=seed, mask=mask, refuses=refuses)


def _fabrication(fusion: Fusion) -> str | None:
    """Return the name of the operator's fabrication; None if it takes none."""
    if "parameter_fabrication" not in inspect.signature(type(fusion)).parameters:
        return None
    node = fusion.to_config().get("parameter_fabrication")
    name = node.get("name") if isinstance(node, Mapping) else node
    return "dense" if name is None else registry.resolve("fabrication", str(name)).key


def _title(fusion: str, fabrication: str | None, data: str, seed: int) -> str:
    return f"{fusion} ({fabrication}) on {data}, seed {seed}" if fabrication else f"{fusion} on {data}, seed {seed}"


def _missing(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the line of the summary about absent views; none where all are present."""
    if "missing" not in data:
        return []
    rows, absent = data["rows"], sum(data["missing"].values())
    parts = ", ".join(f"{name} in {count}" for name, count in data["missing"].items() if count)
    without = f"{data['rows_without_views']} rows without any view"
    return [("missing", f"{absent} of {rows * len(data['views'])} views ({parts} of {rows} rows); {without}")]


def _summary(result: Mapping[str, Any], run_dir: Path) -> None:
    print_table(
        ("run", _title(result["fusion"], result["fabrication"], result["data"]["label"], result["seed"])),
        [
            ("accuracy", f"{result['metrics']['accuracy']:.4f} on {result['data']['test_rows']} test rows"),
            *_missing(result["data"]),
            ("l", f"{result['l']} learnable parameters of the fusion, n = {result['n']}"),
            ("parameters", f"{result['parameters']} of the whole model"),
            ("contract", "n, l, shape, dtype and device verified at the first call; more by fusionkit check"),
            ("seconds", f"{result['seconds']:.1f}"),
            ("files", results.shown(run_dir)),
            *(("", name) for name in (results.RESULT, results.MODEL, results.CURVE)),
        ],
    )
