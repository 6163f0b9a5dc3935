"""Derivatives, and the function transforms that rest on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusionkit.contract.checks._common import at_drawn_sizes, gradients, replaced, skip_if, tensors_of, trained, works
from fusionkit.contract.rules import Violation, any_attempt, equal, expect, no_error, outcome, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.contract.trait_checks import example_cases
from fusionkit.fusion import Fusion

#: Up to this many entries of the Jacobian each is compared; above, a random projection of it.
SLOW_ENTRIES = 600
#: Of a random line: too short to cross many kinks of a large batch, long enough for float64.
STEP = 1e-8
OR_DECLARED = "or once_differentiable_only should be declared"


@rule()
def check_gradcheck(subject: Subject) -> None:
    """The gradients of views, parameters and an external `w` agree with finite differences in float64.

    Look for `.detach()`, `.data`, `torch.no_grad()` and integer arithmetic in `_fuse`.
    """
    op = subject.deterministic_operator()
    x = subject.views(2, requires_grad=True)
    subject.forward(op, x)
    function, inputs = with_parameters(op, x)
    _gradcheck("views and parameters", function, inputs)
    w = op.flat_w().detach().requires_grad_()
    if w.numel():
        _gradcheck("views and an external w", lambda *args: op(list(args[:-1]), w=args[-1]), (*x, w))
    for lead in ((), (2, 3), (300,)):
        any_attempt(partial(along_a_line, subject, op, f"for leading dimensions {lead}", lead))
    for other, rows, size in at_drawn_sizes(subject):
        any_attempt(partial(along_a_line, other, other.operator(), f"for {size}", (rows,)))
    if subject.case.origin == "crossed":
        return  # The fabrications have cases of their own.
    for what, given in GIVEN.items():
        any_attempt(partial(along_a_line, subject, op, f"of {what}", (3,), given))
    if len(set(subject.dims)) == 1 and len(subject.dims) > 1:
        along_a_line(subject, op, "along the diagonal of equal views", (3,), diagonal=True)


#: What views may be besides leaves -> how to make one of a leaf.
GIVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "views that are parameters": nn.Parameter,
    "views behind an operation": lambda view: view * 1,
}


def along_a_line(
    subject: Subject,
    op: Fusion,
    what: str,
    lead: tuple[int, ...],
    given: Callable[[Tensor], Tensor] = lambda view: view,
    *,
    diagonal: bool = False,
) -> None:
    """Expect the gradients to give the slope along a random line, or along the diagonal from equal views.

    Where the slopes to both sides differ, the gradient is free.
    """
    x = subject.views(*lead, requires_grad=True)
    if diagonal:
        x = [x[0].detach().clone().requires_grad_() for _ in x]
    views = [given(view) for view in x]
    own = trained(op)
    out = subject.forward(op, views)
    if not out.requires_grad:
        return
    cotangent = torch.randn_like(out)
    steps = [STEP * torch.randn_like(tensor) for tensor in (*x, *own)]
    if diagonal:
        steps = [*([steps[0]] * len(x)), *(torch.zeros_like(tensor) for tensor in own)]
    pairs = zip(gradients(out, [*views, *own], cotangent), steps, strict=True)
    shares = torch.stack([(gradient * step).sum() for gradient, step in pairs])
    ends = []
    with torch.no_grad():
        kept = [tensor.clone() for tensor in own]
        for sign in (1, -1, 0):  # At last the parameters are as before.
            for tensor, value, step in zip(own, kept, steps[len(x) :], strict=True):
                tensor.copy_(value + sign * step)
            moved = [view + sign * step for view, step in zip(x, steps, strict=False)]
            ends.append(float((subject.forward(op, moved) * cotangent).sum()))
    up, down = ends[0] - ends[2], ends[2] - ends[1]
    slope, room = float(shares.sum()), max(float(shares.norm()), 1e-3 * STEP)
    if abs(up - down) > 1e-2 * room and diagonal:
        return
    should = f"the output {what} should rise by {slope:.6g} along a line, as its gradient says"
    expect(abs((up + down) / 2 - slope) <= 1e-3 * room, should, f"{(up + down) / 2:.6g}")


def with_parameters(op: Fusion, x: list[Tensor]) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return a function of the views and the trained parameters, and its arguments."""
    return lambda *args: op(list(args[: len(x)])), (*x, *trained(op))


def _gradcheck(what: str, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    out = function(*inputs)
    if not out.requires_grad:
        # Constant in all of them; finite differences have to agree.
        moved = function(*(tensor.detach() + 1e-3 * torch.randn_like(tensor) for tensor in inputs))
        expect(torch.equal(out, moved), f"the output should have a graph to {what}", "none, though it depends on them")
        return
    fast = out.numel() * sum(tensor.numel() for tensor in inputs) > SLOW_ENTRIES
    with no_error(f"the gradients of {what} should agree with finite differences"):
        torch.autograd.gradcheck(function, inputs, fast_mode=fast)


@rule(tier=2)
def check_gradgradcheck(subject: Subject) -> None:
    """The second derivatives agree with finite differences, unless `once_differentiable_only` is declared and true.

    Declare it where a function of torch has no second derivative; let the backward of an `autograd.Function` consist
    of differentiable operations, or do without one.
    """
    op = subject.deterministic_operator()
    if subject.promises(op).once_differentiable_only:
        cases = example_cases(subject)
        first = str(subject.case) == str(cases[0].case)
        found = (outcome(partial(agrees, case))[1] for case in cases for agrees in (_agrees_twice, _agrees_forward))
        if first and all(error is None for error in found):
            should = "with once_differentiable_only second derivatives or forward mode should be missing or wrong"
            raise Violation(f"{should} on an example", "that both agree")
        skip("once_differentiable_only is declared")
    any_attempt(partial(_agrees_twice, subject))


def _agrees_twice(subject: Subject) -> None:
    op = subject.operator()
    function, inputs = with_parameters(op, subject.views(2, requires_grad=True))
    skip_if(not function(*inputs).requires_grad, "the output depends on nothing")
    with no_error(f"the second derivatives should agree with finite differences, {OR_DECLARED}"):
        torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@rule(tier=2)
def check_forward_ad(subject: Subject) -> None:
    """`jvp` agrees with `vjp`, and a vmapped `vjp` with a loop, unless `once_differentiable_only` is declared.

    Declare it where a function of torch has no forward mode.  Avoid in-place operations and `.item()` under function
    transforms; see `fusionkit.fusion.in_place_ok`.
    """
    op = subject.deterministic_operator()
    if subject.promises(op).once_differentiable_only:
        # Its autograd.Function has a backward only, because torch.compile refuses one with a jvp.
        skip("once_differentiable_only is declared")
    _agrees_forward(subject)


def _agrees_forward(subject: Subject) -> None:
    op = subject.operator()
    x = tuple(subject.views(3))
    directions = tuple(torch.randn_like(view) for view in x)

    def function(*views: Tensor) -> Tensor:
        out: Tensor = op(list(views))
        return out

    def transformed() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        out, pushed = torch.func.jvp(function, x, directions)[:2]
        pull = torch.func.vjp(function, *x)[1]
        cotangents = torch.randn(3, *out.shape, dtype=out.dtype)
        flat = torch.cat([g.reshape(3, -1) for g in torch.vmap(pull)(cotangents)], 1)
        loop = torch.stack([torch.cat([g.reshape(-1) for g in pull(cotangent)]) for cotangent in cotangents])
        inner = loop[0] @ torch.cat([d.reshape(-1) for d in directions])
        return (cotangents[0] * pushed).sum(), inner, flat, loop

    with no_error(f"jvp and vjp should work, {OR_DECLARED}"):
        forward, backward, vmapped, looped = transformed()
    equal("<u, J v> by jvp", forward, backward)
    equal("a vmapped vjp", vmapped, looped)


@rule(tier=2)
def check_partial_requires_grad(subject: Subject) -> None:
    """Gradients reach exactly the views and parameters that require them, and equal those when all require them.

    Do not turn `requires_grad` on or off in `_fuse`.
    """
    op = subject.deterministic_operator()
    own = [parameter for _, parameter in subject.own(op) if parameter.requires_grad]
    x = subject.views(3, requires_grad=True)
    out = subject.forward(op, x)
    cotangent = torch.randn_like(out)
    full = gradients(out, [*x, *own], cotangent)
    op.requires_grad_(False)
    constants = [view.detach() for view in x]
    for i, view in enumerate(constants):
        alone = view.clone().requires_grad_()
        found = gradients(subject.forward(op, replaced(constants, i, alone)), [alone], cotangent)[0]
        equal(f"the gradient of view {i} alone", found, full[i])
    free = not subject.forward(op, constants).requires_grad
    expect(free, "the output should need no gradient when nothing does", "a graph")
    for parameter, wanted in zip(own, full[len(x) :], strict=True):
        parameter.requires_grad_(True)
        found = gradients(subject.forward(op, constants), [parameter], cotangent)[0]
        equal("the gradient of one parameter alone", found, wanted)
        parameter.requires_grad_(False)
    if op.calculate_l():
        w = op.flat_w().detach().requires_grad_()
        alone, wanted = (gradients(subject.forward(op, views, w=w), [w], cotangent)[0] for views in (constants, x))
        equal("the gradient of an external w alone", alone, wanted)


@rule(tier=3)
def check_activation_checkpoint(subject: Subject) -> None:
    """Gradients under activation checkpointing are the same.

    Let `_fuse` return the same when it runs again: keep no counter and no other state.
    """
    op = subject.deterministic_operator()
    x = subject.views(3, requires_grad=True)
    inputs = [*x, *trained(op)]
    out = subject.forward(op, x)
    cotangent = torch.randn_like(out)
    again = works("checkpointing", lambda: checkpoint(op, x, use_reentrant=False))
    found = works("checkpointing", lambda: gradients(again, inputs, cotangent))
    for one, other in zip(found, gradients(out, inputs, cotangent), strict=True):
        equal("a gradient under checkpointing", one, other)


@rule(tier=2)
def check_functional(subject: Subject) -> None:
    """`functional_call`, `vmap` over rows and over an external `w`, and per-sample gradients agree with ordinary calls.

    Avoid data-dependent branches, `.item()` and in-place operations under function transforms.
    """
    op, other = subject.deterministic_operator(), subject.operator()
    x = subject.views(3)
    called = works("functional_call", lambda: torch.func.functional_call(op, tensors_of(other), (x,)))
    equal("the output of functional_call", called, subject.forward(other, x))
    promises = subject.promises(op)
    if promises.batch_independent and not promises.once_differentiable_only:
        rows = works("vmap over rows", lambda: torch.vmap(lambda *row: op(list(row)))(*x))
        equal("the output of vmap over rows", rows, subject.forward(op, x))
    l = op.calculate_l()
    skip_if(not l, "the operator has no parameters; functional_call works")
    w = torch.randn(4, l, dtype=torch.float64)
    mapped = works("vmap over w", lambda: torch.vmap(lambda one: op(x, w=one))(w))
    equal("the output of vmap over w", mapped, torch.stack([subject.forward(op, x, w=one) for one in w]))
    if promises.batch_independent:
        _per_sample(op, x, w[0])


def _per_sample(op: Any, x: list[Tensor], w: Tensor) -> None:
    def loss(w: Tensor, *row: Tensor) -> Tensor:
        out: Tensor = op(list(row), w=w).square().sum()
        return out

    gradient = torch.func.grad(loss)
    axes = (None, *(0 for _ in x))
    mapped = works("per-sample gradients", lambda: torch.vmap(gradient, in_dims=axes)(w, *x))
    looped = torch.stack([gradient(w, *(view[i] for view in x)) for i in range(len(x[0]))])
    equal("the per-sample gradients", mapped, looped)
