"""Tracing: fake tensors, torch.compile, torch.export, ONNX."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionkit.contract.checks._common import agrees, expect_value, gradients, tensors_of, trained, works
from fusionkit.contract.guard import untimed
from fusionkit.contract.needs import clean_dynamo, missing
from fusionkit.contract.rules import equal, expect, rule
from fusionkit.contract.subject import Subject
from fusionkit.fusion import Fusion
from fusionkit.kernels.modes import fake_tensors, load_compiler

load_compiler()  # Otherwise the first operation on a meta tensor loads it, in the middle of a check.


@rule()
def check_fake_tensor(subject: Subject) -> None:
    """Under FakeTensorMode shapes, dtypes and strides of the output are those of a real call.

    Take decisions by shapes, never by values; call no `.item()`, `.tolist()` or NumPy function.
    """
    op = subject.operator()
    x = subject.views(4)
    real = subject.forward(op, x)
    with fake_tensors() as mode:
        state = {name: mode.from_tensor(tensor) for name, tensor in tensors_of(op).items()}
        views = [mode.from_tensor(view) for view in x]
        fake = works("a call with fake tensors", lambda: torch.func.functional_call(op, state, (views,)))
    for what in ("shape", "dtype"):
        expect_value(f"the {what} of a fake call", getattr(fake, what), getattr(real, what))
    # The stride of a dimension of one entry has no meaning.
    long = [i for i, size in enumerate(real.shape) if size > 1]
    expect_value("the strides of a fake call", [fake.stride(i) for i in long], [real.stride(i) for i in long])


@rule(tier=2, scope="examples")
def check_compile_fullgraph(subject: Subject) -> str | None:
    """`torch.compile(fullgraph=True)` gives the same values and gradients.

    The first case of a fusion is compiled with the default backend, everything else with aot_eager, which traces the
    same and generates no code.  Avoid data-dependent Python branches, prints and unsupported library calls in `_fuse`.
    """
    op = subject.deterministic_operator(dtype=torch.float32)
    backend, lack = "aot_eager", None
    if subject.kind == "fusion" and str(subject.case) == str(subject.cases()[0]):
        with untimed():
            lack = missing(("compiler",))
        backend = "inductor" if lack is None else "aot_eager"
    same_when_compiled(subject, op, backend)
    return f"compiled with {backend}{f', {lack}' if lack else ''}"


def same_when_compiled(subject: Subject, op: Fusion, backend: str) -> None:
    """Expect the values and gradients of the compiled operator to be those of the operator."""
    other = copy.deepcopy(op)
    x = subject.views(4, dtype=torch.float32, requires_grad=True)
    y = [view.detach().clone().requires_grad_() for view in x]
    wanted = subject.forward(op, x)
    cotangent = torch.randn_like(wanted)
    with clean_dynamo():
        compiled = torch.compile(other, fullgraph=True, backend=backend)
        out = works(f"torch.compile with {backend}", lambda: compiled(y))
        equal("the compiled output", out, wanted)
        found = works("the compiled backward", lambda: gradients(out, [*y, *trained(other)], cotangent))
    names = [f"view {i}" for i in range(len(x))] + [name for name, p in op.named_parameters() if p.requires_grad]
    for name, one, two in zip(names, found, gradients(wanted, [*x, *trained(op)], cotangent), strict=True):
        equal(f"the compiled gradient of {name}", one, two)


@rule(tier=3, scope="first")
def check_compile_dynamic(subject: Subject) -> None:
    """Compiled, batches of 2 rows and more need at most one recompilation.

    Let no decision depend on the number of rows while compiling (`torch.compiler.is_compiling()`).
    """
    op = subject.operator(dtype=torch.float32)
    with clean_dynamo(), torch.no_grad():
        compiled, graphs = traced(op)
        for rows in (2, 3, 5, 8, 64):
            x = subject.views(rows, dtype=torch.float32)
            found = works("torch.compile", partial(compiled, x))
            agrees(subject, f"the compiled output of {rows} rows", found, op, x)
    expect(len(graphs) <= 2, "five batch sizes should need at most two graphs", f"{len(graphs)}")


def traced(op: Fusion) -> tuple[Any, list[Any]]:
    """Return the operator compiled whole, and the list of the graphs that its calls make."""
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    return torch.compile(op, fullgraph=True, backend=backend), graphs


@rule(tier=2, scope="first")
def check_export(subject: Subject) -> None:
    """`torch.export` with a dynamic batch, saved and loaded again, computes the same for another batch.

    Let no decision depend on the number of rows, or on values.
    """
    op = subject.operator(dtype=torch.float32)
    x, y = subject.views(4, dtype=torch.float32), subject.views(7, dtype=torch.float32)
    with clean_dynamo(), torch.no_grad():
        loaded = exported(op, x)
        found = works("the exported program", lambda: loaded(y))
    agrees(subject, "the output of the exported program", found, op, y)


def exported(op: Fusion, x: Sequence[Tensor], mask: Tensor | None = None) -> Any:
    """Return the program that torch.export makes of the operator with a dynamic batch, saved and loaded again."""
    dynamic = {0: torch.export.Dim.DYNAMIC}
    masked = {} if mask is None else {"mask": mask}
    shapes = {"x": [dynamic] * len(x), **dict.fromkeys(masked, dynamic)}
    export = partial(torch.export.export, op, (x,), masked, dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(works(f"torch.export{' with a mask' if masked else ''}", export), buffer)
    buffer.seek(0)
    return torch.export.load(buffer).module()


@rule(tier=3, scope="first", needs=("onnx", "onnxruntime"))
def check_onnx(subject: Subject) -> None:
    """Exported to ONNX and run by onnxruntime, the operator computes the same, with a mask too if it takes masks.

    Use operations that ONNX knows; complex numbers and scatter with duplicates are often missing.
    """
    op = subject.deterministic_operator(dtype=torch.float32)
    x, y = subject.views(4, dtype=torch.float32), subject.views(7, dtype=torch.float32)
    equal("the output of onnxruntime", _by_onnxruntime(op, x, y), subject.forward(op, y))
    if op.traits.missing != "refuse":
        first, mask = (torch.rand(len(views[0]), len(views)) < 0.6 for views in (x, y))
        found = _by_onnxruntime(op, x, y, first, mask)
        equal("the output of onnxruntime with a mask", found, subject.forward(op, y, mask=mask))


def _by_onnxruntime(
    op: Fusion, x: Sequence[Tensor], y: Sequence[Tensor], first: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Export the operator for the views ``x`` and the mask ``first``, and run it for ``y`` and ``mask``."""
    import onnxruntime

    dynamic = {0: torch.export.Dim("batch")}
    masked = {} if first is None else {"mask": first}
    shapes = {"x": [dynamic] * len(x), **dict.fromkeys(masked, dynamic)}
    with clean_dynamo(), _no_logging(), torch.no_grad():
        export = partial(torch.onnx.export, op, (list(x),), kwargs=masked, dynamo=True, dynamic_shapes=shapes)
        program: Any = works("the export to ONNX", partial(export, verbose=False))
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    given = [*y] if mask is None else [*y, mask]
    feed = {node.name: value.numpy() for node, value in zip(session.get_inputs(), given, strict=True)}
    return torch.from_numpy(works("onnxruntime", lambda: session.run(None, feed))[0])


@contextlib.contextmanager
def _no_logging() -> Iterator[None]:
    """Keep the exporter from logging which packages it did not find."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
