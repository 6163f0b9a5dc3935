"""Memory, time, threads and processes."""

from __future__ import annotations

import gc
import io
import math
import pickle
import statistics
import threading
import timeit
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import torch
from torch import Tensor

from fusionkit.contract import probes
from fusionkit.contract.checks._common import random_w, skip_if, tensors_of
from fusionkit.contract.rules import Violation, describe, equal, expect, no_error, outcome, rule
from fusionkit.contract.subject import FabricationSubject, Subject
from fusionkit.contract.tracking import Allocations
from fusionkit.contract.workers import fresh
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion

#: Bytes of views at which memory is measured.
MEGABYTE = 2**20
#: (n, dims) at which a fabrication with its own ``_project`` may not build W.
LARGE = (1024, (520, 504))
#: A tensor that has the same shape for both numbers of rows is made of W, not of the rows.
ROWS = (2003, 2053)


@rule(tier=2, scope="examples")
def check_memory(subject: Subject) -> str:
    """The peak of extra memory is at most `memory_factor` times inputs, output and parameters; `project` builds no W.

    Accumulate into one result instead of stacking views, and multiply by the factors of W.
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
    should = f"the peak of extra memory should be at most {factor:g} times the {megabytes}"
    expect(times <= factor, should, f"{times:.1f} times")
    if isinstance(subject, FabricationSubject):
        _builds_no_matrix(subject)
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


@rule(tier=3, scope="first")
def check_no_leak(subject: Subject) -> None:
    """Repeated forward and backward passes leave no memory behind.

    Append to nothing in `_fuse`, and keep no outputs or graphs in attributes.
    """
    op = subject.operator(dtype=torch.float32)
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


@rule(tier=3, scope="first")
def check_scaling(subject: Subject) -> None:
    """Time grows at most linearly with the number of rows and of views, and at most quadratically with the widths.

    Look for loops over rows, and for pairs of views.
    """
    op = subject.operator(dtype=torch.float32)
    dims, few = subject.dims, 2048
    base = _time(op, subject.views(few, dtype=torch.float32))
    _judge("8 times the rows", 8, base, _time(op, subject.views(8 * few, dtype=torch.float32)))
    if isinstance(subject, FabricationSubject):
        return
    for what, times, larger in (("views", 4, dims * 4), ("widths", 16, tuple(4 * width for width in dims))):
        try:
            wide = subject.construct(dims=list(larger), dtype=torch.float32).eval()
        except ValueError:
            continue
        base = _time(op, subject.views(few, dtype=torch.float32))
        _judge(f"4 times the {what}", times, base, _time(wide, subject.views(few, dtype=torch.float32, dims=larger)))


def _judge(what: str, times: int, base: float, found: float) -> None:
    # Caches and other programs blur small times: three times the order, and 2 ms, are granted.
    should = f"{what} should take about {times} times as long, {times * base * 1e3:.2f} ms"
    expect(found <= 3 * times * base + 2e-3, should, f"{found * 1e3:.2f} ms")


def _time(op: Fusion, x: list[Tensor]) -> float:
    with torch.no_grad():
        op(x)
        return statistics.median(timeit.repeat(lambda: op(x), number=1, repeat=5, timer=process_time))


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
