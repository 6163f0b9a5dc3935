"""The shape of the output, for every shape of the views."""

from __future__ import annotations

from functools import partial

import torch

from fusionkit.contract.checks._common import agrees, expect_influence, resized
from fusionkit.contract.checks.gradients import along_a_line
from fusionkit.contract.rules import any_attempt, equal, expect, has_shape, no_error, refuses, rule, skip
from fusionkit.contract.subject import Subject


@rule(basic=True)
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
    """Views with 0 to 5 leading dimensions give what the flattened views give.

    Work on the last dimension only; never assume that the views are matrices.
    """
    op = subject.operator()
    for lead in ((), (3,), (2, 3), (2, 1, 3), (2, 1, 3, 2), (1, 2, 1, 3, 2)):
        x = subject.views(*lead)
        out, what = subject.forward(op, x), f"the output for leading dimensions {lead}"
        has_shape(what, out, (*lead, op.calculate_n()))
        flat = [view.reshape(-1, view.shape[-1]) for view in x]
        agrees(subject, what, out.reshape(-1, out.shape[-1]), op, flat)


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
            fine = parameter.grad is None or not parameter.grad.any()
            expect(fine, f"the gradient of {name} after an empty batch should be zero", str(parameter.grad))
        for i, view in enumerate(x):
            if view.grad is not None:
                has_shape(f"the gradient of view {i}", view.grad, view.shape)


@rule(kinds=("fusion",), scope="first")
def check_single_view(subject: Subject) -> None:
    """One view alone is fused too, and so are up to 12, unless the constructor refuses them with a `DimsError`.

    Begin with `x[0]` and loop over `x[1:]`; do not index `x[1]`.  For each number of views n, l and the gradients are
    right, and each view matters.
    """
    for k in range(2, 13):
        _number_of_views(subject, [2 + k % 2] * k)
    width = subject.dims[0]
    with no_error("a single view should be accepted, or refused with a DimsError"):
        try:
            op = subject.construct(dims=[width], dtype=torch.float64)
        except ValueError as error:  # A DimsError, or another one where the example's options do not fit.
            skip(f"the constructor refuses a single view ({error})")
    subject.randomize(op)
    out = subject.forward(op.eval(), subject.views(3, dims=[width], requires_grad=True))
    has_shape("the output of a single view", out, (3, op.calculate_n()))


def _number_of_views(subject: Subject, dims: list[int]) -> None:
    """Expect k views to be fused, if the operator accepts them and is not too large."""
    other = resized(subject, dims)
    if other is None:
        return
    op, x, what = other.operator(), other.views(3), f"the output of {len(dims)} views"
    out = other.forward(op, x)
    has_shape(what, out, (3, op.calculate_n()))
    own = sum(parameter.numel() for _, parameter in other.own(op))
    expect(op.calculate_l() == own, f"l of {len(dims)} views should be {own}", str(op.calculate_l()))
    if other.promises(op).stochastic or other.promises(op).constant:
        return
    any_attempt(partial(along_a_line, other, op, f"of {len(dims)} views", (3,)))
    expect_influence(other, op, other.views(16), f" of {len(dims)}")
    if op.traits.permutation_invariant:
        equal(f"{what} in reversed order", other.forward(op, x[::-1]), out)


@rule()
def check_zero_views(subject: Subject) -> None:
    """An empty list of views raises a `ValueError`.

    Leave the validation of `forward` to the base class; do not override `forward`.
    """
    op = subject.operator()
    refuses(partial(op, []), "an empty list of views", ValueError)
    refuses(partial(op, ()), "an empty tuple of views", ValueError)
