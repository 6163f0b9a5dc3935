"""Tracing: fake tensors, torch.compile, torch.export, ONNX."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionkit.contract.guard import untimed
from fusionkit.contract.needs import clean_dynamo, missing
from fusionkit.contract.rules import equal, expect, no_error, rule
from fusionkit.contract.subject import Subject
from fusionkit.fusion import Fusion
from fusionkit.kernels.modes import fake_tensors, load_compiler

load_compiler()  # Else the first operation on a meta tensor does it, in the middle of some check.


@rule()
def check_fake_tensor(subject: Subject) -> None:
    """Under FakeTensorMode shapes, dtypes and strides of the output are those of a real call.

    Take decisions by shapes, never by values; call no `.item()`, `.tolist()` or NumPy function.
    """
    op = subject.operator()
    x = subject.views(4)
    real = subject.forward(op, x)
    with fake_tensors() as mode:
        state: dict[str, Tensor] = {
            name: mode.from_tensor(tensor) for name, tensor in (*op.named_parameters(), *op.named_buffers())
        }
        views = [mode.from_tensor(view) for view in x]
        fake = _traced("a call with fake tensors", lambda: torch.func.functional_call(op, state, (views,)))
    for what in ("shape", "dtype"):
        expect(
            getattr(fake, what) == getattr(real, what),
            f"the {what} of a fake call should be {getattr(real, what)}",
            getattr(fake, what),
        )
    # The stride of a dimension of one entry says nothing.
    significant = [i for i, size in enumerate(real.shape) if size > 1]
    same = all(fake.stride(i) == real.stride(i) for i in significant)
    expect(same, f"the strides of a fake call should be {real.stride()}", str(fake.stride()))


@rule(tier=2, scope="examples")
def check_compile_fullgraph(subject: Subject) -> str | None:
    """`torch.compile(fullgraph=True)` gives the same values and gradients.

    The first case of a fusion is compiled with the default backend, everything else with aot_eager, which traces the
    same and generates no code.  Avoid data-dependent Python branches, prints and unsupported library calls in `_fuse`.
    """
    op = subject.deterministic_operator(dtype=torch.float32)
    first = str(subject.case) == str(subject.cases()[0])
    if not first or subject.kind == "fabrication":
        same_when_compiled(subject, op, "aot_eager")
        return "compiled with aot_eager"
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
        found = _traced(f"torch.compile with {backend}", lambda: compiled(y))
        equal("the compiled output", found, wanted)
        if wanted.requires_grad:
            (wanted * cotangent).sum().backward()
            _traced("the compiled backward", lambda: (found * cotangent).sum().backward())
    for i, (a, b) in enumerate(zip(y, x, strict=True)):
        if a.grad is not None or b.grad is not None:
            expect(
                a.grad is not None and b.grad is not None,
                f"view {i} should get a gradient in both modes",
                "one of them",
            )
            equal(f"the compiled gradient of view {i}", a.grad, b.grad)  # type: ignore[arg-type]
    for (name, a), (_, b) in zip(other.named_parameters(), op.named_parameters(), strict=True):
        if b.grad is not None:
            expect(a.grad is not None, f"{name} should get a gradient when compiled", "None")
            equal(f"the compiled gradient of {name}", a.grad, b.grad)  # type: ignore[arg-type]


@rule(tier=3, scope="first")
def check_compile_dynamic(subject: Subject) -> None:
    """Compiled, batches of 2 rows and more need at most one recompilation.

    Let no decision depend on the number of rows while compiling (`torch.compiler.is_compiling()`).
    """
    op = subject.operator(dtype=torch.float32)
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with clean_dynamo(), torch.no_grad():
        compiled = torch.compile(op, fullgraph=True, backend=backend)
        for rows in (2, 3, 5, 8, 64):
            x = subject.views(rows, dtype=torch.float32)
            found = _traced("torch.compile", partial(compiled, x))
            if not subject.promises(op).stochastic:
                equal(f"the compiled output of {rows} rows", found, subject.forward(op, x))
    expect(len(graphs) <= 2, "five batch sizes should need at most two graphs", f"{len(graphs)}")


@rule(tier=2, scope="first")
def check_export(subject: Subject) -> None:
    """`torch.export` with a dynamic batch, saved and loaded again, computes the same for another batch.

    Let no decision depend on the number of rows, or on values.
    """
    op = subject.operator(dtype=torch.float32)
    x, y = subject.views(4, dtype=torch.float32), subject.views(7, dtype=torch.float32)
    with clean_dynamo(), torch.no_grad():
        program = _traced("torch.export", lambda: _exported(op, x))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()
        found = _traced("the exported program", lambda: loaded(y))
    if not subject.promises(op).stochastic:
        equal("the output of the exported program", found, subject.forward(op, y))


def _exported(op: Fusion, x: list[Tensor]) -> Any:
    batch = torch.export.Dim.DYNAMIC
    return torch.export.export(op, (x,), dynamic_shapes=([{0: batch} for _ in x],))


@rule(tier=3, scope="first", needs=("onnx", "onnxruntime"))
def check_onnx(subject: Subject) -> None:
    """Exported to ONNX and run by onnxruntime, the operator computes the same.

    Use operations that ONNX knows; complex numbers and scatter with duplicates are often missing.
    """
    import onnxruntime

    op = subject.deterministic_operator(dtype=torch.float32)
    x, y = subject.views(4, dtype=torch.float32), subject.views(7, dtype=torch.float32)
    with clean_dynamo(), _no_logging(), torch.no_grad():
        batch = torch.export.Dim("batch")
        program = _traced(
            "the export to ONNX",
            lambda: torch.onnx.export(op, (x,), dynamo=True, dynamic_shapes=([{0: batch} for _ in x],), verbose=False),
        )
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feed = dict(zip(names, (view.numpy() for view in y), strict=True))
    found = _traced("onnxruntime", lambda: session.run(None, feed))[0]
    equal("the output of onnxruntime", torch.from_numpy(found), subject.forward(op, y))


def _traced(what: str, call: Callable[[], Any]) -> Any:
    with no_error(f"{what} should work on the operator"):
        return call()


@contextlib.contextmanager
def _no_logging() -> Iterator[None]:
    """Keep the exporter from logging which packages it did not find."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
