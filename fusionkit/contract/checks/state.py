"""Determinism, and what a call may not leave behind."""

from __future__ import annotations

import threading

import torch

from fusionkit.contract.checks._common import agrees, expect_unchanged, tensors_of
from fusionkit.contract.guard import world
from fusionkit.contract.rules import equal, expect, rule
from fusionkit.contract.subject import Subject
from fusionkit.contract.tracking import attributes, class_attributes


@rule(basic=True)
def check_deterministic(subject: Subject) -> None:
    """Two calls in evaluation mode are bitwise equal, unless the operator is declared stochastic.

    Draw nothing in evaluation mode and keep nothing between calls; or declare `Traits(stochastic=True)`.
    """
    for dtype in (torch.float64, torch.float32):
        op = subject.deterministic_operator(dtype=dtype)
        x = subject.views(4, dtype=dtype)
        first = subject.forward(op, x).clone()
        for _ in range(2):
            equal(f"a second call in {dtype}", subject.forward(op, x), first, exact=True)


@rule(tier=2)
def check_rng_isolation(subject: Subject) -> None:
    """A call in evaluation mode draws nothing from the global generators of torch, NumPy and Python.

    Draw constants in the constructor from a generator that you create, and keep them as buffers.
    """
    op = subject.deterministic_operator()
    for lead in ((4,), (), (2, 1, 3), (65,)):
        x = subject.views(*lead)
        before = _process(generators=True)
        subject.forward(op, x)
        expect_unchanged("a call should draw from no global generator", before, _process(generators=True))


@rule(basic=True)
def check_idempotent_calls(subject: Subject) -> None:
    """A call changes no setting of the process, and in evaluation mode no parameter, buffer or attribute.

    Set no attribute in `_fuse`, also not on the class; running statistics may change in training mode only.  End a
    thread within the call that starts it.
    """
    op = subject.operator()
    tensors = tensors_of(op)
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    before, threads = {**attributes(op), **class_attributes(op)}, set(threading.enumerate())
    settings = _process(generators=False)
    for _ in range(2):
        subject.forward(op, subject.views(4))
    expect_unchanged("a call should change no attribute", before, {**attributes(op), **class_attributes(op)})
    for name, tensor in tensors.items():
        expect(torch.equal(tensor, values[name]), f"{name} should keep its values", "other values")
    subject.forward(op.train(), subject.views(4))
    expect_unchanged("a call should leave the settings of the process alone", settings, _process(generators=False))
    left = sorted({thread.name for thread in set(threading.enumerate()) - threads})
    expect(not left, "a call should leave no thread behind", f"{left}")


def _process(*, generators: bool) -> dict[str, object]:
    """Return the states of the generators of random numbers, or the settings of the process."""
    return {name: value for name, value in world().items() if ("generator" in name) == generators}


@rule()
def check_no_grad(subject: Subject) -> None:
    """Under `no_grad` and `inference_mode` the output is the same, without a graph.

    Never turn gradients on in `_fuse`.
    """
    op = subject.operator()
    x = subject.views(3, requires_grad=True)
    for what, mode in (("no_grad", torch.no_grad), ("inference_mode", torch.inference_mode)):
        with mode():
            out = subject.forward(op, x)
            free = not out.requires_grad and out.grad_fn is None
            expect(free, f"the output under {what} should have no graph", "one")
        agrees(subject, f"the output under {what}", out, op, x)
