"""A run on arrays, tensors and data frames in memory, without files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fusionkit._util.trees import to_python
from fusionkit.config.composition import compose
from fusionkit.config.fits import check_operator, preflight
from fusionkit.config.options import FileOptions, ModelOptions, NpzOptions, TrainOptions, validate
from fusionkit.errors import FusionError, OptionError, nearest
from fusionkit.experiment.data import arrays_digest, dataset
from fusionkit.experiment.model import FusionModel
from fusionkit.experiment.npz import arrays_source
from fusionkit.experiment.parameters import named, own_names
from fusionkit.experiment.run import Run, takes_group
from fusionkit.experiment.source import ROLES, Array, Source, check_orders, check_unmasked
from fusionkit.experiment.splits import split as divide
from fusionkit.experiment.state import exclusive
from fusionkit.experiment.summary import print_data

#: The options that other values of a config refer to.
_SHARED = ("n", "device", "seed")
#: Option -> the group of a config in which it is; "": in none.
_GROUPS = dict.fromkeys((*_SHARED, "task", "metric"), "") | {
    name: group
    for group, options in (("data", NpzOptions), ("model", ModelOptions), ("train", TrainOptions))
    for name in options.model_fields
    if name not in ("name", "dims", "path", "test_path", "missing")
}
_NAME = "the arrays"
#: What a view cannot be called.
_TAKEN = ("label", "mask", *ROLES)


@exclusive()
def train(
    views: Mapping[str, Any],
    label: Any,
    *,
    fusion: str | Mapping[str, Any] = "parameterized_concatenation",
    fabrication: str | Mapping[str, Any] = "dense",
    mask: Any = None,
    group: Any = None,
    split: Any = None,
    folds: Any = None,
    weight: Any = None,
    progress: bool = False,
    **options: Any,
) -> tuple[FusionModel, dict[str, Any]]:
    """Train on views in memory as ``fusionkit run`` does on a file, and measure the model; no file is written.

    Where every view is a data frame, and their columns have different names, columns of text become categories, and the
    model predicts data frames that have all these columns; otherwise columns should contain numbers or booleans.

    Args:
        views: name -> array, tensor or data frame (m, n_i); rows of NaN where a view is absent.
        label: (m,), or (m, t) for several: numbers, booleans or text.
        fusion: name of the operator, or a dict with its name and options.
        fabrication: the same for the operators that take one.
        mask: bool (m, k), True where a view of a row is present; None: where it is not all NaN.
        group: (m,), rows of one group are never on two sides of a split.
        split: (m,), train, validation or test.
        folds: (m,), of which those with the value of the option ``fold`` are the test part.
        weight: (m,), multiplies the loss of each row.
        progress: show data and progress on standard error.
        **options: of ``fusionkit run``, by the last part of their key: ``n``, ``seed``, ``device``, ``task``,
            ``metric``, and those of the groups data, model and train, such as ``test_size``, ``encoder``, ``epochs``.

    Returns:
        The model, which takes raw views, and the record that ``result.json`` would hold.

    Raises:
        FusionError, ConfigError, RegistryError: data or options that cannot be used, or a training that failed.
    """
    begun = time.perf_counter()
    roles = {"group": group, "split": split, "folds": folds, "weight": weight}
    with own_names(_GROUPS):
        tree = _tree(fusion, fabrication, to_python(options))
        run = _prepared(tree, _source(views, label, roles, mask, tree["data"]["impute"]), progress)
        run.train()
        record = run.record()
    return run.model, {**record, "seconds": round(time.perf_counter() - begun, 3)}


def _tree(fusion: Any, fabrication: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain config of a run with these operators and options, not checked yet.

    Raises:
        OptionError: there is no such option.
        ConfigError: there is no such operator.
    """
    for key in options:
        if key not in _GROUPS:
            raise OptionError(f"train should be given options of a run; found {key!r}.{nearest(key, _GROUPS)}")
    nodes = {"fusion": named(fusion, "fusion"), "fabrication": named(fabrication, "fabrication")}
    chosen = [f"{kind}={node.pop('name')}" for kind, node in nodes.items()]
    shared = [f"{key}={json.dumps(options[key], default=str)}" for key in _SHARED if key in options]
    tree = compose(["data=npz", "data.path=arrays", *chosen, *shared])
    takes_fabrication = tree["fusion"].get("parameter_fabrication") == tree["fabrication"]
    tree["fabrication"] |= nodes["fabrication"]
    if takes_fabrication:
        tree["fusion"]["parameter_fabrication"] = dict(tree["fabrication"])
    tree["fusion"] |= nodes["fusion"]
    for key, value in options.items():
        (tree[_GROUPS[key]] if _GROUPS[key] else tree)[key] = value
    return tree


def _prepared(tree: dict[str, Any], source: Source, progress: bool) -> Run:
    """Return the run of a plain config on a source, checked."""
    # The hash of the config tells other data apart.
    tree["data"] |= {"path": f"arrays:{source.digest}", "missing": "nan" if source.mask is None else "mask"}
    config = validate(tree)
    preflight(config, takes_group(config))
    data = dataset(cast(FileOptions, config.data), source, config.task)
    parts = divide(data, config.data, config.seed)
    check_operator(config, data.dims, data.task.outputs)
    if progress:
        print_data(data, parts, sys.stderr)
    return Run(config, data, parts, "" if progress else None)


def _source(views: Mapping[str, Any], label: Any, roles: Mapping[str, Any], mask: Any, impute: Any) -> Source:
    """Return the views, labels and roles as a file would hold them.

    Raises:
        FusionError: arguments of other types, shapes or names.
    """
    if not isinstance(views, Mapping) or not all(isinstance(name, str) for name in views):
        raise FusionError(f"views should be a mapping of names to views; found {type(views).__name__}.")
    for name in views:
        if name in _TAKEN:
            raise FusionError(f"A view should have another name than {', '.join(_TAKEN)}; found {name!r}.")
    frames = {name: view for name, view in views.items() if hasattr(view, "columns")}
    given = {key: _framed(key, values) for key, values in (("label", label), *roles.items(), ("mask", mask))}
    check_orders([*((f"views[{name!r}]", frame) for name, frame in frames.items()), *given.items()])
    arrays, table = {name: _array(f"View {name!r}", view) for name, view in views.items() if name not in frames}, None
    if frames:
        encoded, table = _pandas("encode_frames")(frames, impute, whole=len(frames) == len(views))
        arrays |= encoded
    arrays = {name: arrays[name] for name in views}  # In the order of the mapping.
    labels = None
    for key, values in given.items():
        if key == "label" and hasattr(values, "columns"):
            labels = _pandas("frame_labels")(values, "the argument label")
            arrays[key] = labels.values
        elif key in roles and hasattr(values, "columns"):
            arrays[key] = _pandas("frame_role")(key, values, f"the argument {key}")
        elif values is not None:
            arrays[key] = _array(f"The argument {key}", values)
    digest, mask = arrays_digest(arrays), arrays.pop("mask", None)
    source = arrays_source(Path(_NAME), digest, arrays, mask)
    return replace(source, table=table, labels=labels or replace(source.labels, what="The argument label"))


def _pandas(name: str) -> Any:
    """Return a function of the module that imports pandas, which takes as long as torch."""
    return getattr(import_module("fusionkit.experiment.tables.frames"), name)


def _framed(key: str, values: Any) -> Any:
    """Return a series as a data frame, anything else as it is."""
    if not hasattr(values, "to_frame"):
        return values
    return values.to_frame(key if values.name is None else values.name)


def _array(what: str, values: Any) -> Array:
    """Return a tensor, or whatever becomes an array, as an array of numbers, booleans or text."""
    check_unmasked(what, values)
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # Which numpy does not have.
    try:
        array = np.asarray(values)
    except ValueError:  # Of rows of different lengths.
        raise FusionError(f"{what} should have the same number of values in each row; found others.") from None
    if array.dtype.kind != "O":
        return array
    for place, value in np.ndenumerate(array):
        if not isinstance(value, str):
            raise FusionError(f"{what} should contain numbers or text; found {type(value).__name__} in row {place[0]}.")
    return array.astype(np.str_)
