"""The formats of an exported model, ONNX and torch.export's: each can be written and run."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit._util.text import error_line
from fusionkit.core.validation import DTYPES
from fusionkit.errors import FusionError

#: The key of the description in the metadata of a file.
KEY = "fusionkit"
#: The name of the first dimension of inputs and outputs.
ROWS = "rows"
#: What torch raises for what it cannot export.
_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, NotImplementedError)
#: A file of protobuf is no larger.
_MOST_BYTES = 2**31

#: Inputs by name -> the output.
Run = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Format:
    """How a model is written, and run.

    Attributes:
        needs: modules without which it cannot be written.
        dtypes: in which the network may compute; in others it computes in the first.
        arguments: whether the program that is written needs the names of the inputs as those of its arguments.
        write: (module, example inputs, description, path); raises FusionError for what it does not have.
        open: returns what runs a file, and its name; None where that is not installed.
    """

    needs: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    arguments: bool
    write: Callable[[nn.Module, Mapping[str, Tensor], Mapping[str, Any], Path], None]
    open: Callable[[Path], tuple[str, Run] | None]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch and its exporter print, log and warn off the screen."""
    before, sink = logging.root.manager.disable, io.StringIO()
    logging.disable(max(before, logging.ERROR))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _refused(what: str, errors: tuple[type[Exception], ...] = _ERRORS, advice: str = "") -> Iterator[None]:
    """Turn these errors into one sentence."""
    try:
        yield
    except errors as error:
        should = f"consist of operations that {what} has"
        raise FusionError(f"The model should {should}; found {_cause(error)}.{advice}") from error


def _cause(error: BaseException) -> str:
    """Return the operation that is missing, or else the first of the errors that led to this one."""
    while error.__cause__ is not None:
        error = error.__cause__
    if type(error).__name__ == "GuardOnDataDependentSymNode":
        return "a decision by the values of the views"
    named = re.search(r"OpOverload\(op='([\w.:]+)'", str(error))
    return named[1] if named else error_line(error, 200)


def _program(module: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """Return the program of a module for any number of rows, without the places in its source code."""
    dynamic = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    with _refused("torch.export"):
        program = torch.export.export(module, (), dict(inputs), dynamic_shapes=dynamic)
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(key, None)
    return program


# ------------------------------------------------------------------ .pt2


def _write_pt2(module: nn.Module, inputs: Mapping[str, Tensor], description: Mapping[str, Any], path: Path) -> None:
    with _quiet():
        torch.export.save(_program(module, inputs), path, extra_files={KEY: _text(description)})


def _open_pt2(path: Path) -> tuple[str, Run]:
    with _quiet():
        program = torch.export.load(path).module()

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        output: Tensor = program(**inputs)
        return output

    return f"torch {torch.__version__}", run


# ------------------------------------------------------------------ .onnx


def _write_onnx(module: nn.Module, inputs: Mapping[str, Tensor], description: Mapping[str, Any], path: Path) -> None:
    advice = "  A .pt2 file has all of torch's operations, of any size."
    size = sum(tensor.numel() * tensor.itemsize for tensor in [*module.parameters(), *module.buffers()])
    if size >= _MOST_BYTES:
        raise FusionError(f"The model should have less than 2 GiB for one file of ONNX; found {size} bytes.{advice}")
    with _quiet():
        exported = _program(module, inputs)
        with _refused("ONNX", advice=advice):
            output = [description["output"]]
            program: Any = torch.onnx.export(exported, dynamo=True, verbose=False, output_names=output)
        _tidy(program.model, description)
        program.save(path, external_data=False)


def _tidy(model: Any, description: Mapping[str, Any]) -> None:
    """Name inputs and rows, add the description, and remove the exporter's notes on the source code."""
    names = [one["name"] for one in description["inputs"]]
    if description["mask"] is not None:
        names.append(description["mask"])
    graph, rows = model.graph, str(model.graph.inputs[0].shape[0])
    inner = [*graph.initializers.values()]
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        inner += [value for value in node.outputs if value not in graph.outputs]
    for value in inner:
        if value.name in names:  # A view may be called as a value in the graph is.
            value.name = f"inner:{value.name}"
    for value, name in zip(graph.inputs, names, strict=True):
        value.name = name
    for value in [*graph.inputs, *graph.outputs, *inner]:
        value.metadata_props.clear()
        for i, size in enumerate(value.shape or ()):
            if str(size) == rows:
                value.shape[i] = ROWS
    graph.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props[KEY] = _text(description)


def _open_onnx(path: Path) -> tuple[str, Run] | None:
    if find_spec("onnxruntime") is None:
        return None
    onnxruntime = import_module("onnxruntime")
    errors = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    refusals = tuple(one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception))
    name, options = f"onnxruntime {onnxruntime.__version__}", onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with _refused(name, refusals):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        with _refused(name, refusals):
            return torch.from_numpy(session.run(None, {key: value.numpy() for key, value in inputs.items()})[0])

    return name, run


def _text(description: Mapping[str, Any]) -> str:
    return json.dumps(description, ensure_ascii=False, allow_nan=False)


#: The formats by the ending of a file.  onnxruntime has few operations in half precision on the CPU, and no Erf, which
#: GELU needs, in float64.
FORMATS = {
    ".onnx": Format(("onnx", "onnxscript"), (torch.float32,), False, _write_onnx, _open_onnx),
    ".pt2": Format((), DTYPES, True, _write_pt2, _open_pt2),
}
