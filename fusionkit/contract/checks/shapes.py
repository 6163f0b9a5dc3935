"""The shape of the output, for every shape of the views."""

from __future__ import annotations

from functools import partial

import torch

from fusionkit.contract.rules import equal, expect, has_shape, no_error, refuses, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.errors import DimsError


@rule()
def check_forward_shape(subject: Subject) -> None:
    """Views of shape (..., n_i) give an output of shape (..., n).

    Let `_fuse` keep the leading dimensions, and only them.
    """
    op = subject.operator()
    for lead in ((1,), (5,), (2, 3)):
        out = subject.forward(op, subject.views(*lead))
        has_shape(f"the output of views (*{lead}, n_i)", out, (*lead, op.calculate_n()))


@rule()
def check_leading_dims(subject: Subject) -> None:
    """Views with 0, 1, 2 or 3 leading dimensions give what the flattened views give.

    Work on the last dimension only; never assume that the views are matrices.
    """
    op = subject.operator()
    for lead in ((), (3,), (2, 3), (2, 1, 3)):
        x = subject.views(*lead)
        flat = [view.reshape(-1, view.shape[-1]) for view in x]
        out = subject.forward(op, x)
        wanted = subject.forward(op, flat)
        shape = (*lead, op.calculate_n())
        has_shape(f"the output for leading dimensions {lead}", out, shape)
        if not subject.promises(op).stochastic:
            equal(f"the output for leading dimensions {lead}", out, wanted.reshape(shape))


@rule()
def check_empty_batch(subject: Subject) -> None:
    """Views (0, n_i) give an output (0, n), and gradients that are empty or zero.

    Avoid reductions that have no identity (`max` over the batch) and divisions by the number of rows.
    """
    op = subject.operator()
    for lead in ((0,), (2, 0), (2, 0, 3)):
        x = subject.views(*lead, requires_grad=True)
        out = subject.forward(op, x)
        has_shape(f"the output of views (*{lead}, n_i)", out, (*lead, op.calculate_n()))
        if out.requires_grad:
            out.sum().backward()
        for name, parameter in op.named_parameters():
            gradient = parameter.grad
            fine = gradient is None or bool((gradient == 0).all())
            expect(fine, f"the gradient of {name} after an empty batch should be zero", str(gradient))
        for i, view in enumerate(x):
            if view.grad is not None:
                has_shape(f"the gradient of view {i}", view.grad, view.shape)


@rule(kinds=("fusion",), scope="first")
def check_single_view(subject: Subject) -> None:
    """One view alone is fused too, unless the constructor refuses it with a `DimsError`.

    Begin with `x[0]` and loop over `x[1:]`; do not index `x[1]`.
    """
    width = subject.dims[0]
    with no_error("a single view should be accepted, or refused with a DimsError"):
        try:
            op = subject.construct(dims=[width], dtype=torch.float64)
        except DimsError as error:
            skip(f"the operator refuses a single view ({error})")
        except ValueError as error:
            skip(f"the options of the example do not fit a single view ({error})")
    subject.randomize(op)
    x = subject.views(3, dims=[width], requires_grad=True)
    out = subject.forward(op.eval(), x)
    has_shape("the output of a single view", out, (3, op.calculate_n()))


@rule()
def check_zero_views(subject: Subject) -> None:
    """No views at all are a `ValueError`.

    Leave the validation of `forward` to the base class; do not override `forward`.
    """
    op = subject.operator()
    empty: tuple[list[torch.Tensor] | tuple[torch.Tensor, ...], ...] = ([], ())
    for x in empty:
        refuses(partial(op, x), f"forward({x!r}), without views,", ValueError)
