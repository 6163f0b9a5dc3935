"""One run: from a checked config to a trained model, its picture and its record."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionkit._util.tables import print_table
from fusionkit.core import first_call as passive
from fusionkit.errors import ConfigError, DimsError, FusionError, nearest
from fusionkit.experiment import results
from fusionkit.experiment.data import Dataset, load_data, split
from fusionkit.experiment.load import save
from fusionkit.experiment.metrics import confusion_matrix, metrics
from fusionkit.experiment.model import HEADS, FusionModel, Network, Scaler, encoder_widths
from fusionkit.experiment.robustness import robustness
from fusionkit.experiment.training import Part, Settings, seeded, threads, train
from fusionkit.fusion import Fusion, check_device

__all__ = ["build_model", "run_job"]


def run_job(
    cfg: dict[str, Any],
    run_dir: Path,
    *,
    quiet: bool = False,
    record_only: bool = False,
    report: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Train what ``cfg`` describes; write ``model.safetensors``, ``curve.png`` and, last, ``result.json``.

    Args:
        cfg: checked, resolved and plain, without the ``hydra`` node.
        run_dir: made if needed; the files of an earlier run in it are removed first.
        quiet: show neither progress nor summary.
        record_only: write neither the model nor the picture.
        report: is told after each epoch which part of the training is done; it may be called in another process.

    Returns:
        The record that ``result.json`` holds.

    Raises:
        FusionError, ConfigError, RegistryError: what cannot be run, or failed while running; nothing is left that looks
            finished, and the caller records the failure with ``results.write_failed``.
    """
    begun = time.perf_counter()
    run_dir = Path(run_dir)
    results.start(run_dir)
    settings = Settings.of(_node(cfg, "train"))
    seed = _seed(cfg.get("seed"))
    device = check_device(cfg.get("device")) or torch.device("cpu")
    data_node = _node(cfg, "data")
    data = load_data(data_node, cfg.get("dims"))
    rows, test_rows = split(data, seed=seed, test_size=data_node.get("test_size", 0.2), fold=data_node.get("fold"))
    # Built on the CPU: the initial values are the same on every device.
    with seeded(seed, torch.device("cpu")):
        model = build_model(cfg, data, settings.input_dropout)
    # The operator may be a stranger's: one that does not keep its contract is refused at its first call.
    passive.attach(model.fusion)
    model.scaler.fit([view[rows] for view in data.views.values()])
    history = train(
        model.network,
        _part(model, data, rows),
        _part(model, data, test_rows),
        settings,
        device=device,
        seed=seed,
        progress=None if quiet else _title(cfg, model, data, run_dir),
        report=report,
    )
    with threads(model.network, settings, torch.device("cpu")):
        measured, confusion = _measure(model, data, test_rows, settings.epochs)
        disturbed = _robustness(model, data, test_rows, seed)
    if not record_only:
        save(model, run_dir / results.MODEL)
    fusion = model.fusion
    result = results.record(
        cfg,
        status="completed",
        fusion=model.describe()["fusion"]["name"],
        fabrication=_fabrication(fusion),
        dims=list(fusion.dims or ()),
        data_dims=data.dims,
        n=fusion.n,
        l=fusion.calculate_l(),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        metrics=measured,
        config_hash=_hash(cfg),
        data={**data.describe(), "training_rows": len(rows), "test_rows": len(test_rows)},
        classes=data.classes,
        confusion=confusion,
        robustness=disturbed,
        history=history.to_json(),
        provenance=results.provenance(cfg),
    )
    if not record_only:
        from fusionkit.experiment.plots import draw_run

        results.write_atomic(run_dir / results.CURVE, lambda path: draw_run(result, path))
    result["seconds"] = round(time.perf_counter() - begun, 3)
    results.write_json(run_dir / results.RESULT, result)
    results.tell(result, run_dir)
    if not quiet:
        _summary(result, run_dir)
    return result


def build_model(cfg: Mapping[str, Any], data: Dataset, input_dropout: float = 0.0) -> FusionModel:
    """Build the untrained model of a config for ``data``, on the CPU, from the global random state.

    Raises:
        ConfigError, DimsError, RegistryError: the config does not describe one.
    """
    from fusionkit.config.safe import build

    node, part = dict(_node(cfg, "fusion")), _node(cfg, "model")
    head = part.get("head", "linear")
    if head not in HEADS:
        raise ConfigError(f"model.head should be {', '.join(HEADS)}; found {head!r}.{nearest(str(head), HEADS)}")
    kind, width = part.get("encoder", "none"), part.get("encoder_width")
    seen = encoder_widths(kind, data.dims, cfg.get("n") if width is None else width)
    given = node.get("dims")
    if given is not None and list(given) not in (data.dims, seen):
        raise DimsError(f"fusion.dims should be {seen}, the widths that the fusion sees; found {list(given)}.")
    node.update(dims=seen, device=None)
    # The node holds a copy of the group's, where the user set the options.
    shared = node.get("parameter_fabrication") == cfg.get("fabrication")
    fusion = build(node, "fusion", {"fusion.parameter_fabrication": "fabrication"} if shared else None)
    if not isinstance(fusion, Fusion):
        raise ConfigError(f"fusion should describe a fusion operator; found a {type(fusion).__name__}.")
    if not fusion.require_parameters and fusion.calculate_l():
        raise ConfigError("fusion.require_parameters should be true to be trained; found false.")
    activation = part.get("activation", "none")
    network = Network(fusion, data.dims, len(data.classes), kind, input_dropout, activation)
    return FusionModel(Scaler(list(data.views), data.dims), network, data.classes)


def _node(cfg: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = cfg.get(key)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{key} should be a group of the config; found {found!r}.")
    return found


def _seed(seed: Any) -> int:
    # The range that NumPy and scikit-learn admit.
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed should be an integer from 0 to {2**32 - 1}; found {seed!r}.")
    return seed


def _hash(cfg: Mapping[str, Any]) -> str:
    from fusionkit.config import config_hash

    return config_hash(cfg)


def _part(model: FusionModel, data: Dataset, rows: np.ndarray[Any, Any]) -> Part:
    views = model.scaler([np.ascontiguousarray(view[rows]) for view in data.views.values()])
    return Part(views, torch.from_numpy(data.target[rows]))


@torch.no_grad()
def _measure(
    model: FusionModel, data: Dataset, rows: np.ndarray[Any, Any], epochs: int
) -> tuple[dict[str, float], list[list[int]]]:
    """Return metrics and confusion matrix (rows: true classes) of the test part, by the whole model on the CPU."""
    model.eval()
    logits = model([view[rows] for view in data.views.values()]).double()
    if not logits.isfinite().all():
        raise FusionError(f"The trained model should give finite logits; found others after epoch {epochs}, the last.")
    target, found = data.target[rows], logits.argmax(-1).numpy()
    confusion = confusion_matrix(target, found, len(data.classes))
    probabilities = logits.softmax(-1).numpy()[np.arange(len(target)), target]
    return metrics(confusion, probabilities), confusion.tolist()


@torch.no_grad()
def _robustness(
    model: FusionModel, data: Dataset, rows: np.ndarray[Any, Any], seed: int
) -> dict[str, dict[str, float]]:
    """Return the accuracy of the test part with views missing and noisy."""
    part = _part(model, data, rows)
    views = {name: view.numpy() for name, view in zip(data.views, part.views, strict=True)}

    def predict(chosen: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        dtype = model.network.head.weight.dtype
        logits = model.network([torch.from_numpy(view).to(dtype) for view in chosen])
        return np.asarray(logits.argmax(-1).numpy())

    return robustness(predict, views, data.target[rows], seed=seed)


def _fabrication(fusion: Fusion) -> str | None:
    """Return the name of the operator's fabrication; None if it takes none."""
    config = fusion.to_config()
    if "parameter_fabrication" not in inspect.signature(type(fusion)).parameters:
        return None
    found = config.get("parameter_fabrication")
    name = found.get("name") if isinstance(found, Mapping) else found
    if name is None:
        return "dense"
    from fusionkit import registry

    return registry.resolve("fabrication", str(name)).key


def _title(cfg: Mapping[str, Any], model: FusionModel, data: Dataset, run_dir: Path) -> str:
    """Return what is said before the first epoch."""
    return f"training {_what(model.fusion)} on {data.label}, seed {cfg['seed']}, in {results.shown(run_dir)}"


def _what(fusion: Fusion) -> str:
    fabrication = _fabrication(fusion)
    return str(fusion.to_config()["name"]) + (f" ({fabrication})" if fabrication else "")


def _summary(result: Mapping[str, Any], run_dir: Path) -> None:
    what = result["fusion"] + (f" ({result['fabrication']})" if result["fabrication"] else "")
    print_table(
        ("run", f"{what} on {result['data']['label']}, seed {result['seed']}"),
        [
            ("accuracy", f"{result['metrics']['accuracy']:.4f} on {result['data']['test_rows']} test rows"),
            ("l", f"{result['l']} learnable parameters of the fusion, n = {result['n']}"),
            ("parameters", f"{result['parameters']} of the whole model"),
            ("contract", "n, l, shape, dtype and device verified at the first call; more by fusionkit check"),
            ("seconds", f"{result['seconds']:.1f}"),
            ("files", results.shown(run_dir)),
            *(("", name) for name in (results.RESULT, results.MODEL, results.CURVE)),
        ],
    )
