"""A trained run as one file that runs without fusionkit: ONNX, or a program of torch.export.

Scaler, encoders, fusion, head and the units of the target are one module: a float32 input (rows, n_i) per view, a bool
input ``mask`` (rows, k) where the run was trained with absent views; one float32 output (rows, c).
"""

from __future__ import annotations

import copy
import inspect
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit._util.distribution import version
from fusionkit._util.files import write_atomic
from fusionkit._util.text import count_of
from fusionkit.errors import FusionError
from fusionkit.experiment.export_formats import FORMATS, Format
from fusionkit.experiment.load import load
from fusionkit.experiment.model import FusionModel
from fusionkit.experiment.results import RESULT, read_result
from fusionkit.experiment.state import exclusive

#: The name of the input that says which views are present.
MASK = "mask"
#: Names that the code of torch.fx uses, which an argument of the same name would hide.
_GLOBALS = ("inf", "nan", "NoneType", "torch", "device", "fx_pytree", "pytree", "getattr", "slice")
SCHEMA_VERSION = 1
#: The rows of the two batches of the check.
CHECKED_ROWS = (3, 17)
#: How far the file may be off, in probabilities or in standard deviations of the target; in half precision farther.
#: What float32 cannot tell apart may become a few thousandths: by a signed square root near 0, as that of ``mcb``.
TOLERANCE = 1e-2
#: What float32 cannot tell apart, relative to a value.
_EPS = float(torch.finfo(torch.float32).eps)
#: Task -> the name of the output, and the last operation.
_OUTPUTS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "classification": ("probabilities", partial(torch.softmax, dim=-1)),
    "multilabel": ("probabilities", torch.sigmoid),
    "regression": ("values", torch.clone),
}


@dataclass
class Exported:
    """What a file has and computes.

    Attributes:
        description: its metadata.
        checked: what has run it; None if nothing can here.
        difference: the greatest one to the model, in probabilities or in standard deviations of the targets.
        notes: lines for the user.
    """

    description: dict[str, Any]
    checked: str | None = None
    difference: float = 0.0
    notes: list[str] = field(default_factory=list)


class Portable(nn.Module):
    """A trained model whose ``forward`` has an argument per view (rows, n_i), and ``mask`` if ``masked``.

    Args:
        model: in evaluation mode.
        names: of the arguments, one per view.
        masked: whether there is a mask.
    """

    def __init__(self, model: FusionModel, names: Sequence[str], masked: bool) -> None:
        super().__init__()
        self.model = model
        _, last = _OUTPUTS[model.task.name]

        def forward(**given: Tensor) -> Tensor:
            views = model.scaler([given[name] for name in names], model.network.dtype)
            output: Tensor = model.network(views, mask=given.get(MASK))
            return last(model.task.in_units(output.double())).float()

        # torch.export takes the names of the inputs from the signature.
        arguments = [*names, MASK] if masked else names
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in arguments]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward


def export(run_dir: Path, path: Path) -> Exported:
    """Write the trained model of a run to a file, as ``export_model`` does.

    Args:
        run_dir: the directory of a completed run.
        path: ends in one of ``FORMATS``.

    Raises:
        FusionError, RegistryError, ConfigError: as ``fusionkit.load``, or as ``export_model``.
        ModuleNotFoundError: as ``export_model``.
    """
    model = load(run_dir)
    return export_model(model, path, masked=_is_masked(model, read_result(run_dir / RESULT)))


@exclusive()
@torch.no_grad()
def export_model(model: FusionModel, path: Path, *, masked: bool = False) -> Exported:
    """Write a model to a file, and compare what the file computes with the model.

    Args:
        model: on the CPU, in evaluation mode.
        path: ends in one of ``FORMATS``.
        masked: whether the file takes a mask.

    Raises:
        FusionError: an operation that the format does not have, or a file that is off by more than ``TOLERANCE``,
            which is then not left.
        ModuleNotFoundError: what writes the format is not installed.
    """
    format = FORMATS[path.suffix.lower()]
    for needed in format.needs:
        import_module(needed)
    computed, notes = _computed(model, format)
    found = Exported(describe(computed, masked), notes=[*notes, *_coarse(model)])
    names = [one["name"] for one in found.description["inputs"]]
    if not format.arguments:  # What the exporter calls values in the graph may be the name of a view.
        names = [f"argument_of_view_{i}" for i in range(len(names))]
    module, (few, *_) = Portable(computed, names, masked), CHECKED_ROWS

    def write(temporary: Path) -> None:
        format.write(module, _inputs(model, names, masked, few), found.description, temporary)
        _check(found, format, temporary, model, computed)

    write_atomic(path, write)
    return found


def _computed(model: FusionModel, format: Format) -> tuple[FusionModel, list[str]]:
    """Return a copy of the model, without gradients, in a dtype in which the format computes, and notes about that."""
    model, dtype = copy.deepcopy(model).requires_grad_(False), model.network.dtype
    if dtype in format.dtypes:
        return model, []
    model.network.to(format.dtypes[0])
    name, other = (str(one).removeprefix("torch.") for one in (dtype, format.dtypes[0]))
    return model, [f"the run computed in {name}; the file computes the same in {other}."]


def _is_masked(model: FusionModel, result: Mapping[str, Any]) -> bool:
    """Whether the run was trained with absent views, and its fusion takes masks."""
    absent = result["data"].get("missing") or result["config"].get("train", {}).get("view_dropout")
    return bool(absent) and model.fusion.takes_masks


def input_names(views: Sequence[str]) -> list[str]:
    """Return a name of its own for the input of each view: an identifier of ASCII, no keyword, and not ``mask``."""
    names: list[str] = []
    taken = {MASK, "self", *_GLOBALS, *(name for name, _ in _OUTPUTS.values())}
    for view in views:
        name = base = re.sub(r"\W", "_", view, flags=re.ASCII)
        if not name.isidentifier() or keyword.iskeyword(name):
            name = base = f"view_{base}"
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        names.append(name)
    return names


def describe(model: FusionModel, masked: bool) -> dict[str, Any]:
    """Return the metadata of a file in JSON types."""
    scaler, task, table = model.scaler, model.task, model.table
    columns = {} if table is None else table.names()
    inputs = [
        {"name": name, "view": view, "width": width, **({} if table is None else {"columns": columns[view]})}
        for name, view, width in zip(input_names(scaler.names), scaler.names, scaler.dims, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "fusionkit": version(),
        "fusion": model.fusion.name,
        "task": task.name,
        "classes": list(task.classes),
        "targets": list(task.targets),
        "inputs": inputs,
        "mask": MASK if masked else None,
        "output": _OUTPUTS[task.name][0],
        "impute": scaler.impute,
        "dtype": str(model.network.dtype).removeprefix("torch."),
        "table": None if table is None else table.to_json(),
    }


def _coarse(model: FusionModel) -> list[str]:
    """Return notes on views whose offsets are so large that float32 loses some of what varies."""
    notes = []
    for i, name in enumerate(model.scaler.names):
        mean, scale = (model.scaler.get_buffer(f"{what}_{i}") for what in ("mean", "scale"))
        wrong = (mean.abs() * _EPS / scale) > 1e-2
        if wrong.any():
            columns = f"{count_of(int(wrong.sum()), 'column')}, the first is {int(wrong.int().argmax())},"
            lose = (
                "with a mean so large beside the standard deviation that float32, the type of the inputs, loses digits"
            )
            notes.append(f"view {name!r}: {columns} {lose}.")
    return notes


# ------------------------------------------------------------------ the check


def _inputs(model: FusionModel, names: Sequence[str], masked: bool, rows: int) -> dict[str, Tensor]:
    """Return random inputs with the mean and scale of the training part, the same in every process."""
    generator, inputs = torch.Generator().manual_seed(rows), dict[str, Tensor]()
    for i, name in enumerate(names):
        mean, scale = (model.scaler.get_buffer(f"{what}_{i}") for what in ("mean", "scale"))
        drawn = torch.randn(rows, len(mean), generator=generator, dtype=torch.float64)
        inputs[name] = (mean + scale * drawn).float()
        if not inputs[name].isfinite().all():
            what = f"View {i} ({model.scaler.names[i]})"
            should = "have values that float32, the type of the inputs, can hold"
            raise FusionError(f"{what} should {should}; found a mean of {float(mean.abs().max()):.3g}.")
    if masked:
        inputs[MASK] = torch.rand(rows, len(names), generator=generator) < 0.7
        inputs[MASK][0] = True
    return inputs


def _check(found: Exported, format: Format, path: Path, model: FusionModel, computed: FusionModel) -> None:
    """Compare a file with the model; where that is in half precision, the tolerance is for ``computed``.

    Raises:
        FusionError: they differ, or the file does not run.
    """
    opened = format.open(path)
    if opened is None:
        return
    found.checked, run = opened
    masked = found.description["mask"] is not None
    names = [one["name"] for one in found.description["inputs"]]
    tolerance = max(TOLERANCE, 4 * torch.finfo(computed.network.dtype).eps)
    for rows in CHECKED_ROWS:
        inputs = _inputs(model, names, masked, rows)
        output = run(inputs).double()
        wanted = exact = _predicted(model, names, inputs)
        if model.network.dtype.itemsize == 2:
            exact = _predicted(computed, names, inputs)
        off = float(((output - exact).abs() - _rounding(model, exact)).div(_scale(model, exact)).max())
        if not off <= tolerance:
            should = f"give the model's {found.description['output']} up to {tolerance:.1g}"
            raise FusionError(f"{found.checked} should {should}; found them off by {off:.2g}.")
        found.difference = max(found.difference, float((output - wanted).abs().div(_scale(model, wanted)).max()))


def _scale(model: FusionModel, like: Tensor) -> Tensor:
    """Return in what the tolerance is measured: the standard deviations of the targets, or 1."""
    return like.new_tensor(getattr(model.task, "scale", 1.0))


def _rounding(model: FusionModel, values: Tensor) -> Tensor | float:
    """Return what values of targets lose as float32; probabilities lose nothing that counts."""
    return 4 * _EPS * values.abs() if model.task.targets else 0.0


def _predicted(model: FusionModel, names: Sequence[str], inputs: Mapping[str, Tensor]) -> Tensor:
    views = [inputs[name] for name in names]
    return torch.from_numpy(model.task.predicted(model.evaluate(views, inputs.get(MASK), empty=True)))
