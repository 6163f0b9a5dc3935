"""Determinism, and what a call may not leave behind."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import torch

from fusionkit.contract.checks._common import agrees, expect_unchanged, expect_value, shares_memory, tensors_of
from fusionkit.contract.guard import set_default_device, world
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
        for rows in range(1, 10):
            new = copy.deepcopy(op)  # The first call of an operator may differ from all others.
            x = subject.views(rows, dtype=dtype)
            first = subject.forward(new, x).clone()
            for _ in range(2):
                equal(f"a second call in {dtype}", subject.forward(new, x), first, exact=True)
    x = subject.views(4, dtype=dtype)
    subject.forward(op, x)
    for view in x:
        view.numpy()[:] = 1.5  # Unseen by torch: the version of the tensor stays.
        again = [view.clone() for view in x]
        equal("a call after a view changed in memory", subject.forward(op, x), subject.forward(op, again), exact=True)
    other = subject.operator(dtype=dtype)
    with torch.no_grad():
        subject.forward(op, x)
        for parameter in op.parameters():
            parameter.detach().numpy()[...] *= 1.5
        other.load_state_dict(op.state_dict())
        what = "a call after the parameters changed in memory"
        equal(what, subject.forward(op, x), subject.forward(other, x), exact=True)


@rule(tier=2)
def check_rng_isolation(subject: Subject) -> None:
    """A call draws nothing from the global generators of torch, NumPy and Python, unless `stochastic` in training mode.

    Draw constants in the constructor from a generator that you create, and keep them as buffers.
    """
    op = subject.deterministic_operator()
    trains_at_random = subject.promises(copy.deepcopy(op).train()).stochastic
    seed = torch.initial_seed()
    subject.forward(copy.deepcopy(op).train(), subject.views(4))
    expect_value("the seed of torch's generator after a call in training mode", torch.initial_seed(), seed)
    for lead in ((4,), (), (2, 1, 3), (65,)):
        x = subject.views(*lead)
        before = _process(generators=True)
        # In training mode with several rows only: batch normalization refuses one.
        for training in (False, True) if lead == (4,) and not trains_at_random else (False,):
            for recorded in (True, False):
                with torch.set_grad_enabled(recorded):
                    subject.forward(op.train(training), x)
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
    for recorded in (True, True, False, False):
        with torch.set_grad_enabled(recorded):
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


@rule(tier=2, scope="examples")
def check_process_settings(subject: Subject) -> None:
    """The output is the same under another default dtype or device, more threads, determinism, anomaly detection.

    Give every tensor that `_fuse` creates dtype and device of the views, and ask for no setting of the process.
    """
    op = subject.deterministic_operator(dtype=torch.float32)
    x = subject.views(4, dtype=torch.float32)
    wanted = subject.forward(op, x).clone()
    dtype, device, threads = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    settings: dict[str, Callable[[], object]] = {
        "the default dtype float64": lambda: torch.set_default_dtype(torch.float64),
        "the default device meta": lambda: torch.set_default_device("meta"),
        "three threads": lambda: torch.set_num_threads(3),
        "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
        "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    }
    anomaly = torch.is_anomaly_enabled()
    for what, apply in settings.items():
        try:
            apply()
            found = subject.forward(op, x)
            expect_value(f"the dtype of the output under {what}", found.dtype, wanted.dtype)
            equal(f"the output under {what}", found, wanted)
        finally:
            torch.set_default_dtype(dtype)
            set_default_device(device)
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.autograd.set_detect_anomaly(anomaly)


@rule()
def check_no_grad(subject: Subject) -> None:
    """Under `no_grad` and `inference_mode` the output is the same, for few rows and for many, without a graph.

    Never turn gradients on in `_fuse`.
    """
    op = subject.operator()
    for rows in (3, 300):
        x = subject.views(rows, requires_grad=True)
        for what, mode in (("no_grad", torch.no_grad), ("inference_mode", torch.inference_mode)):
            with mode():
                out = subject.forward(op, x)
                # What shares the memory of a view may be the view itself, which requires a gradient.
                free = out.grad_fn is None and (not out.requires_grad or shares_memory(out, x))
                expect(free, f"the output under {what} should have no graph", "one")
                before = out.clone()
                subject.forward(op, subject.views(rows))
                equal(f"an output under {what} after another call", out, before, exact=True)
            agrees(subject, f"the output of {rows} rows under {what}", out, op, x)
