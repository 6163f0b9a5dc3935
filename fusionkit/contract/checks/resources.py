"""Memory, time, threads and processes."""

from __future__ import annotations

import gc
import io
import itertools
import math
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionkit.contract import probes
from fusionkit.contract.checks._common import random_w, resized, skip_if, tensors_of
from fusionkit.contract.rules import Violation, any_attempt, describe, equal, expect, no_error, outcome, rule
from fusionkit.contract.subject import FabricationSubject, Subject
from fusionkit.contract.tracking import Allocations
from fusionkit.contract.workers import fresh
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion
from fusionkit.kernels.tracing import Recorder

#: A folder with an entry for each open file of this process, on Linux.
FILES = "/proc/self/fd"
#: Bytes of views at which memory is measured.
MEGABYTE = 2**20
#: (n, dims) at which a fabrication with its own ``_project`` may not build W.
LARGE = (1024, (520, 504))
#: A tensor that has the same shape for both numbers of rows is made of W, not of the rows.
ROWS = (2003, 2053)


@rule(tier=2, scope="examples")
def check_memory(subject: Subject) -> str:
    """The peak of extra memory is at most `memory_factor` times inputs, output and parameters; `project` builds no W.

    Accumulate into one result instead of stacking views, and multiply by the factors of W; where the formula needs
    more, declare `Traits(memory_factor=...)`.
    """
    op = subject.operator(dtype=torch.float32)
    rows = -(-MEGABYTE // (4 * sum(subject.dims)))
    x = subject.views(rows, dtype=torch.float32, requires_grad=True)
    with Allocations([*x, *tensors_of(op).values()]) as counter:
        out = subject.forward(op, x)
        if out.requires_grad:
            out.backward(torch.ones_like(out))
    sizes = sum(tensor.nbytes for tensor in (*x, out, *op.parameters()))
    factor, times = subject.promises(op).memory_factor, counter.peak / sizes
    number = isinstance(factor, int | float) and 0 < factor < math.inf
    expect(number, "memory_factor should be a finite number above 0", repr(factor))
    megabytes = f"{sizes / MEGABYTE:.1f} MB of inputs, output and parameters"
    should = f"the peak of extra memory should be at most {factor:g} times the {megabytes}, or memory_factor declared"
    expect(times <= factor, should, f"{times:.1f} times")
    if isinstance(subject, FabricationSubject):
        _builds_no_matrix(subject)
    elif (wide := resized(subject, [2048] * len(subject.dims))) is not None:
        x = wide.views(8, dtype=torch.float32)
        wide_op = wide.operator(dtype=torch.float32)
        with torch.no_grad(), Allocations([*x, *tensors_of(wide_op).values()]) as counter:
            out = wide.forward(wide_op, x)
        sizes = sum(tensor.nbytes for tensor in (*x, out, *wide_op.parameters()))
        should = f"for eight rows of width 2048 the peak should be at most {factor:g} times the {sizes} bytes"
        expect(counter.peak <= factor * sizes, should, f"{counter.peak / sizes:.1f} times")
    return f"{times:.1f} times"


def _builds_no_matrix(subject: FabricationSubject) -> None:
    n, dims = LARGE
    fabrication = subject.made()
    if type(fabrication)._project is Fabrication._project:
        return
    try:
        fabrication.prepare(n, dims, dtype=torch.float32)
        w = torch.randn(fabrication.calculate_l(n, sum(dims)))
    except ValueError:
        return  # The options do not fit this size.
    shapes = []
    for rows in ROWS:
        x = subject.views(rows, dtype=torch.float32, dims=dims)
        with torch.no_grad(), Allocations([w, *x, *fabrication.buffers()]) as counter:
            fabrication.project(x, w, n)
        shapes.append(set(counter.shapes))
    entries = n * sum(dims)
    matrices = [shape for shape in shapes[0] & shapes[1] if math.prod(shape) >= entries]
    should = f"project of {ROWS[0]} rows should build no matrix of n*D = {entries} elements"
    expect(not matrices, should, f"tensors of the shapes {matrices}")


@rule(tier=2, scope="first")
def check_no_leak(subject: Subject) -> None:
    """Repeated calls, in evaluation and in training mode, leave no memory and no open file behind.

    Append to nothing in `_fuse`, not even to a global list, and keep no outputs or graphs in attributes.
    """
    op = subject.operator(dtype=torch.float32)
    gc.freeze()  # Otherwise each collection goes through all objects of torch.
    try:
        before, rows = _open_files(), itertools.count(2)
        for training in (False, True):
            # Caches may still fill at first.
            any_attempt(partial(_keeps_no_objects, subject, op, rows, training=training))
        opened = len(_open_files() - before)
        expect(opened < 50, "hundreds of calls should leave no file open", f"{opened} more")
        _keeps_no_memory(subject, op.eval())
    finally:
        gc.unfreeze()


def _keeps_no_memory(subject: Subject, op: Fusion) -> None:
    x = subject.views(64, dtype=torch.float32, requires_grad=True)
    alive = []
    with Allocations([*x, *tensors_of(op).values()]) as counter:
        for i in range(9):
            out = subject.forward(op, x)
            if out.requires_grad:
                out.sum().backward()
            for tensor in (*x, *op.parameters()):
                tensor.grad = None
            del out
            if i % 3 == 2:  # The first passes may fill caches.
                gc.collect()
                alive.append(counter.alive())
    expect(alive[1] == alive[2], "the memory after 6 and after 9 passes should be the same", f"{alive[1:]} bytes")


def _keeps_no_objects(subject: Subject, op: Fusion, rows: Iterator[int], *, training: bool) -> None:
    """Expect as many blocks of Python's memory after 200 calls, each of another number of rows, as after 100."""
    x = subject.views(1500, dtype=torch.float32)
    op.train(training)
    blocks = []
    for _ in range(2):
        for _ in range(100):
            m = next(rows)
            op([view[:m] for view in x])
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    should = f"100 calls in {'training' if training else 'evaluation'} mode should leave no objects behind"
    expect(blocks[1] - blocks[0] < 50, should, f"{blocks[1] - blocks[0]} more blocks of memory")


def _open_files() -> set[str]:
    return set(os.listdir(FILES)) if os.path.isdir(FILES) else set()


@rule(tier=3, scope="first")
def check_scaling(subject: Subject) -> None:
    """Work and traffic grow at most linearly with rows and views (`order_in_k`), and quadratically with the widths.

    Operations and bytes are counted, on the meta device.  Look for loops over rows, and for pairs of views; where the
    formula has them, declare `Traits(order_in_k=2)`, and `order_in_k=None` where it has a tensor over all views.
    """
    traits = subject.promises(op := subject.build(device="meta").eval())
    dims, few = subject.dims, 2048
    base = _counted(op, few, dims)
    _judge("8 times the rows", 8, base, _counted(op, 8 * few, dims))
    if isinstance(subject, FabricationSubject):
        return
    larger_by = {"widths": (16.0, tuple(4 * width for width in dims))}
    if traits.order_in_k is not None:
        larger_by["views"] = 4**traits.order_in_k, dims * 4
    for what, (times, larger) in larger_by.items():
        try:
            wide = subject.construct(dims=list(larger), device="meta").eval()
        except ValueError:
            continue
        _judge(f"4 times the {what}", times, base, _counted(wide, few, larger))


def _judge(what: str, times: float, base: dict[str, int], found: dict[str, int]) -> None:
    for unit, count in base.items():
        # Twice the order is granted: with the size, an operator may choose another way to compute the same.
        should = f"{what} should take at most about {times:g} times as many {unit}, {times * count:g}"
        expect(found[unit] <= 2 * times * count, should, f"{found[unit]}")


def _counted(op: Fusion, rows: int, dims: Sequence[int]) -> dict[str, int]:
    """Return what a call on the meta device does: arithmetic operations, and bytes read and written."""
    x = [torch.empty(rows, width, device="meta") for width in dims]
    with torch.no_grad(), Recorder() as recorder, no_error("forward should work on the meta device"):
        op(x)
    return {
        "operations": sum(one.macs + one.elementwise for one in recorder.operations),
        "bytes": sum(one.bytes for one in recorder.operations),
    }


@rule(tier=3, scope="first")
def check_thread_safety(subject: Subject) -> None:
    """Eight threads, half of them with an external `w` of their own, get what serial calls get; parameters stay intact.

    Keep nothing in attributes during a call.
    """
    op = subject.deterministic_operator()
    before = op.flat_w().detach().clone()
    weights = [torch.randn_like(before) if i % 2 and before.numel() else None for i in range(8)]
    calls: list[Callable[[], Tensor]] = [partial(op, subject.views(16), w=w) for w in weights]
    wanted = [call().detach() for call in calls]
    found: list[Any] = [None] * 8
    barrier = threading.Barrier(8)

    def work(i: int) -> None:
        barrier.wait()
        for _ in range(20):
            out, error = outcome(calls[i])
            found[i] = error if out is None else out.detach()
            if error is not None or not torch.equal(found[i], wanted[i]):
                return

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if isinstance(one, BaseException):
            raise Violation("a call in one of eight threads should work", describe(one))
        equal(f"the output in thread {i}", one, other, exact=True)
    expect(torch.equal(op.flat_w().detach(), before), "the parameters should be intact afterwards", "other values")


@rule(tier=3, scope="first", needs=("interpreter",))
def check_spawn_safety(subject: Subject) -> None:
    """Pickled and sent to a fresh process, the operator computes the same there, and a seed gives the same W.

    Define the class in an importable module; rely neither on what was set up at run time nor on the `hash` of a string.
    """
    op = subject.deterministic_operator()
    local = subject.source.record is not None and subject.source.record.local
    skip_if(local, "needs an installed plugin, and the subject was registered at run time")
    x = subject.views(5)
    equal("the output of the other process", _elsewhere(op, x), subject.forward(op, x))
    if isinstance(subject, FabricationSubject):
        # Not prepared: the other process draws the frozen parts itself.
        (n, D), fabrication = subject.size, subject.made()
        w = random_w(fabrication, n, D)
        materialize = partial(fabrication, n, D)
        equal("W in the other process", _elsewhere(materialize, w), materialize(w))


def _elsewhere(call: Callable[[Any], Tensor], x: Any) -> Tensor:
    """Return ``call(x)``, computed in a fresh process."""
    with no_error("the operator should be picklable"):
        data = pickle.dumps((call, x))
    output: Any
    output, error = outcome(partial(fresh, probes.computed, data))
    expect(error is None, "the operator should work in a fresh process", str(error))
    found: Tensor = torch.load(io.BytesIO(output), weights_only=True)
    return found
