"""The traits that an operator declares."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from fusionkit.contract.checks._common import expect_nowhere, gradients, replaced, skip_if, trained
from fusionkit.contract.rules import TOLERANCE, equal, expect, rule
from fusionkit.contract.subject import Subject
from fusionkit.contract.trait_checks import verify
from fusionkit.fusion import Fusion, Traits


@rule()
def check_batch_independence(subject: Subject) -> None:
    """Row i of the output depends on row i of the views alone, if `batch_independent` is declared.

    Reduce over the last dimension only, and decide nothing by the number of rows; or do not declare it.
    """
    op = subject.deterministic_operator()
    skip_if(not subject.promises(op).batch_independent, "batch_independent is not declared")
    for lead in ((4,), (2, 2)):
        x = subject.views(*lead)
        kept = (1,) if len(lead) == 1 else (1, 0)
        other = [torch.randn_like(view) for view in x]
        for moved, view in zip(other, x, strict=True):
            moved[kept] = view[kept]
        equal("a row, when the other rows change,", subject.forward(op, other)[kept], subject.forward(op, x)[kept])
    # Kernels cut batches of thousands of rows into blocks.
    for total in (65, 5003) if subject.case.origin == "example" else (65,):
        many = subject.views(total)
        with torch.no_grad():
            whole = subject.forward(op, many)
            for rows in (1, 2, 9):
                alone = subject.forward(op, [view[-rows:] for view in many])
                equal(f"{rows} of {total} rows, when they are alone,", alone, whole[-rows:])


@rule(kinds=("fusion",), scope="none")
def check_permutation(subject: Subject) -> None:
    """Exchanging views of equal width changes nothing, if and only if `permutation_invariant` is declared.

    Declare what holds; weights per view, or an order of the views in the output, make it false.
    """
    verify(subject, "permutation_invariant", _invariant, "an exchange of views should change the output")


def _invariant(subject: Subject) -> bool | None:
    op = subject.operator()
    if subject.promises(op).stochastic:
        return None
    x = subject.views(8)
    for view in x:
        view[6:] = view[6:].round().clamp(-1, 1)  # Ties.
    pairs = [(i, j) for i, j in combinations(range(len(x)), 2) if subject.dims[i] == subject.dims[j]]
    if not pairs:
        return None
    base = subject.forward(op, x)
    if not op.traits.permutation_invariant and torch.equal(base, subject.forward(op, subject.views(8))):
        return None  # An output that ignores all views, as with the fabrication zero, cannot show the trait.
    for i, j in pairs:
        swapped = replaced(replaced(x, i, x[j]), j, x[i])
        if not torch.allclose(subject.forward(op, swapped), base, rtol=1e-9, atol=1e-10):
            return False
    return True


@rule(scope="none", basic=True)
def check_stochastic(subject: Subject) -> None:
    """Two calls in training mode differ if and only if `stochastic` is declared.

    Declare it, or draw nothing in `_fuse`.
    """
    verify(subject, "stochastic", _differs_in_training, "two calls in training mode should agree")


def _differs_in_training(subject: Subject) -> bool:
    op = subject.operator().train()
    x = subject.views(32)
    return not torch.equal(subject.forward(op, x), subject.forward(op, x))


@rule(scope="none", basic=True)
def check_train_eval(subject: Subject) -> None:
    """Training and evaluation mode give different values or gradients if and only if `train_eval_differ` is declared.

    Declare it, or look at `self.training` nowhere.
    """
    verify(subject, "train_eval_differ", _mode_matters, "training and evaluation mode should agree")


def _mode_matters(subject: Subject) -> bool:
    op = subject.operator()
    x = subject.views(32, requires_grad=True)
    state = torch.get_rng_state()
    found = []
    for training in (True, False):
        torch.set_rng_state(state)
        out = subject.forward(op.train(training), x)
        found.append([out.detach(), *gradients(out, [*x, *trained(op)])])
    return not all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-9, atol=1e-10)
        for one, other in zip(*found, strict=True)
    )


@rule(tier=2)
def check_linear(subject: Subject) -> None:
    """The output is linear in the views, if `linear` is declared.

    A bias, a normalization or a nonlinearity makes it false; then do not declare it.
    """
    op = subject.operator()
    skip_if(not subject.promises(op).linear, "linear is not declared")
    for scale in (1.0, 1e-6, 30.0, 1e4):
        x, y = ([scale * view for view in subject.views(4)] for _ in range(2))
        mixed = [2.5 * a - 1.5 * b for a, b in zip(x, y, strict=True)]
        wanted = 2.5 * subject.forward(op, x) - 1.5 * subject.forward(op, y)
        what = f"the output of 2.5 x - 1.5 y, for values around {scale:g} and divided by them,"
        equal(what, subject.forward(op, mixed) / scale, wanted / scale)
        what = f"the output of {scale:g} x, divided by it,"
        equal(what, subject.forward(op, x) / scale, subject.forward(op, [view / scale for view in x]))
    zero = subject.forward(op, [torch.zeros_like(view) for view in x])
    expect(not zero.any(), "the output of zeros should be zero", f"values up to {float(zero.abs().max()):.3g}")


@rule(tier=2, kinds=("fusion",))
def check_algebraic(subject: Subject) -> None:
    """`idempotent`, `convex` and `monotone` hold where they are declared.

    Declare only what the formula implies for all views.
    """
    op = subject.operator()
    traits = op.traits
    none = not (traits.idempotent or traits.convex or traits.monotone)
    skip_if(none, "neither idempotent, convex nor monotone is declared")
    for x in (
        *([scale * view for view in subject.views(16)] for scale in (1.0, 1e-6, 30.0, 1e4)),
        [-view.abs() for view in subject.views(16)],
        [view.round().clamp(-1, 1) for view in subject.views(16)],  # Ties.
    ):
        _algebraic(subject, op, traits, x)


def _algebraic(subject: Subject, op: Fusion, traits: Traits, x: list[Tensor]) -> None:
    scale = max(float(view.abs().max()) for view in x)
    slack = TOLERANCE[torch.float64][1] * scale
    out = subject.forward(op, x)
    if traits.idempotent and len(set(subject.dims)) == 1:
        copies = subject.forward(op, [x[0]] * len(x))
        equal("the output of k copies of one view", copies / scale, x[0] / scale)
    if traits.convex:
        # Where entries do not correspond, those of the whole row are the bounds.
        entrywise = set(subject.dims) == {out.shape[-1]}
        stacked = torch.stack(x) if entrywise else torch.cat(x, -1).movedim(-1, 0)[..., None]
        outside = (out < stacked.amin(0) - slack) | (out > stacked.amax(0) + slack)
        expect_nowhere(outside, "every output should lie between the views' entries")
    if traits.monotone:
        for i in range(len(x)):
            fell = subject.forward(op, replaced(x, i, x[i] + scale * torch.rand_like(x[i]))) < out - slack
            expect_nowhere(fell, f"all outputs should stay or rise when view {i} is raised")
