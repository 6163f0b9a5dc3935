"""Derivatives, and the function transforms that rest on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fusionkit.contract.rules import Violation, any_attempt, describe, equal, expect, no_error, outcome, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.contract.trait_checks import example_cases
from fusionkit.fusion import Fusion

#: Up to this many entries of the Jacobian each is compared; above, a random projection of it.
SLOW_ENTRIES = 600


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
        k = len(x)
        _gradcheck("views and an external w", lambda *args: op(list(args[:k]), w=args[k]), (*x, w))
    for lead in ((), (2, 3), (300,)):
        any_attempt(partial(_along_a_line, subject, op, lead))


def _along_a_line(subject: Subject, op: Fusion, lead: tuple[int, ...]) -> None:
    """Expect the gradients for other numbers of rows to give the slope along a random line."""
    x = subject.views(*lead, requires_grad=True)
    inputs = [*x, *(parameter for parameter in op.parameters() if parameter.requires_grad)]
    out = subject.forward(op, x)
    if not out.requires_grad:
        return
    cotangent, steps = torch.randn_like(out), [1e-6 * torch.randn_like(tensor) for tensor in inputs]
    gradients = _gradients(out, inputs, cotangent)
    shares = [(g * step).sum() for g, step in zip(gradients, steps, strict=True) if g is not None]
    kept = [tensor.detach().clone() for tensor in inputs]
    ends = []
    with torch.no_grad():
        for sign in (1, -1):
            for tensor, value, step in zip(inputs, kept, steps, strict=True):
                tensor.copy_(value + sign * step)
            ends.append((subject.forward(op, x) * cotangent).sum() / 2)
        for tensor, value in zip(inputs, kept, strict=True):
            tensor.copy_(value)
    rise, slope = float(ends[0] - ends[1]), float(sum(shares, torch.zeros(())))
    size = max(float(torch.stack(shares).norm()), 1e-9)
    expect(
        abs(rise - slope) <= 1e-3 * size,
        f"along a random line the output for leading dimensions {lead} should rise by {slope:.6g}, as gradients say",
        f"{rise:.6g}",
    )


def with_parameters(op: Fusion, x: list[Tensor]) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return a function of the views and the trained parameters, and these."""
    trained = tuple(parameter for parameter in op.parameters() if parameter.requires_grad)
    return lambda *args: op(list(args[: len(x)])), (*x, *trained)


def _gradcheck(what: str, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    out = function(*inputs)
    if not out.requires_grad:
        # Constant in all of them; finite differences have to agree.
        moved = function(*(tensor.detach() + 1e-3 * torch.randn_like(tensor) for tensor in inputs))
        expect(torch.equal(out, moved), f"the output should have a graph to {what}", "none, though it depends on them")
        return
    fast = out.numel() * sum(tensor.numel() for tensor in inputs) > SLOW_ENTRIES
    try:
        torch.autograd.gradcheck(function, inputs, fast_mode=fast, raise_exception=True)
    except RuntimeError as error:  # GradcheckError is one.
        raise Violation(f"the gradients of {what} should agree with finite differences", describe(error)) from error


@rule(tier=2)
def check_gradgradcheck(subject: Subject) -> None:
    """The second derivatives agree with finite differences, unless `once_differentiable_only` is declared and true.

    Write an `autograd.Function` with differentiable operations in its backward, or do without one.
    """
    op = subject.deterministic_operator()
    if subject.promises(op).once_differentiable_only:
        cases = example_cases(subject)
        if str(subject.case) == str(cases[0].case) and all(_twice(case) is None for case in cases):
            raise Violation(
                "once_differentiable_only is declared, and the second derivatives should be missing or wrong on an "
                "example",
                "that they agree with finite differences",
            )
        skip("once_differentiable_only is declared")
    any_attempt(partial(_agrees_twice, subject))


def _agrees_twice(subject: Subject) -> None:
    if (error := _twice(subject)) is not None:
        raise Violation("the second derivatives should agree with finite differences", describe(error)) from error


def _twice(subject: Subject) -> BaseException | None:
    """Return what is wrong with the second derivatives."""
    op = subject.operator()
    x = subject.views(2, requires_grad=True)
    function, inputs = with_parameters(op, x)
    if not function(*inputs).requires_grad:
        skip("the output depends on nothing")
    return outcome(lambda: torch.autograd.gradgradcheck(function, inputs, fast_mode=True))[1]


@rule(tier=2)
def check_forward_ad(subject: Subject) -> None:
    """`jvp` agrees with `vjp`, and a vmapped `vjp` with a loop, unless `once_differentiable_only` is declared.

    Avoid in-place operations and `.item()` under function transforms; see `fusionkit.fusion.in_place_ok`.
    """
    op = subject.operator()
    if subject.promises(op).once_differentiable_only:
        # A backward of one's own is all there is: torch.compile refuses an autograd.Function with a jvp.
        skip("once_differentiable_only is declared")
    if subject.promises(op).stochastic:
        skip("the operator is stochastic")
    x = tuple(subject.views(3))
    directions = tuple(torch.randn_like(view) for view in x)

    def function(*views: Tensor) -> Tensor:
        out: Tensor = op(list(views))
        return out

    def transformed() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        out, pushed = torch.func.jvp(function, x, directions)[:2]
        pull = torch.func.vjp(function, *x)[1]
        cotangents = torch.randn(3, *out.shape, dtype=out.dtype)
        pulled = torch.vmap(pull)(cotangents)
        looped = [pull(cotangent) for cotangent in cotangents]
        inner = sum((g * d).sum() for g, d in zip(looped[0], directions, strict=True))
        flat = torch.cat([g.reshape(3, -1) for g in pulled], 1)
        loop = torch.stack([torch.cat([g.reshape(-1) for g in one]) for one in looped])
        return (cotangents[0] * pushed).sum(), torch.as_tensor(inner), flat, loop

    forward, backward, vmapped, looped = _transform("jvp and vjp", transformed)
    equal("<u, J v> by jvp", forward, backward)
    equal("a vmapped vjp", vmapped, looped)


def _transform(what: str, call: Callable[[], Any]) -> Any:
    with no_error(f"{what} should work on the operator"):
        return call()


@rule(tier=2)
def check_partial_requires_grad(subject: Subject) -> None:
    """Gradients reach exactly the views and parameters that require them, and are the same as with all of them.

    Do not turn `requires_grad` on or off in `_fuse`.
    """
    op = subject.deterministic_operator()
    own = [parameter for _, parameter in subject.own(op) if parameter.requires_grad]
    x = subject.views(3, requires_grad=True)
    out = subject.forward(op, x)
    cotangent = torch.randn_like(out)
    full = _gradients(out, [*x, *own], cotangent)
    for parameter in op.parameters():
        parameter.requires_grad_(False)
    for i in range(len(x)):
        views = [view.detach().requires_grad_(j == i) for j, view in enumerate(x)]
        out = subject.forward(op, views)
        _same(f"the gradient of view {i} alone", _gradients(out, [views[i]], cotangent)[0], full[i])
    constants = [view.detach() for view in x]
    expect(
        not subject.forward(op, constants).requires_grad,
        "the output should need no gradient when nothing does",
        "a graph",
    )
    for parameter, wanted in zip(own, full[len(x) :], strict=True):
        parameter.requires_grad_(True)
        out = subject.forward(op, constants)
        _same("the gradient of one parameter alone", _gradients(out, [parameter], cotangent)[0], wanted)
        parameter.requires_grad_(False)


def _gradients(out: Tensor, inputs: list[Any], cotangent: Tensor) -> list[Tensor | None]:
    if not out.requires_grad:
        return [None] * len(inputs)
    return list(torch.autograd.grad(out, inputs, cotangent, allow_unused=True))


def _same(what: str, found: Tensor | None, wanted: Tensor | None) -> None:
    if found is None or wanted is None:
        still = all(g is None or not g.any() for g in (found, wanted))
        expect(
            still, f"{what} should be the same as with all", "None" if found is None else "one, where there was none"
        )
    else:
        equal(what, found, wanted)


@rule(tier=3)
def check_activation_checkpoint(subject: Subject) -> None:
    """Gradients under activation checkpointing are the same.

    Let `_fuse` give the same when it is run again: no counters, no state.
    """
    op = subject.deterministic_operator()
    x = subject.views(3, requires_grad=True)
    inputs = [*x, *(parameter for _, parameter in subject.own(op))]
    out = subject.forward(op, x)
    cotangent = torch.randn_like(out)
    wanted = _gradients(out, inputs, cotangent)
    again = _transform("checkpointing", lambda: checkpoint(op, x, use_reentrant=False))
    found = _transform("checkpointing", lambda: _gradients(again, inputs, cotangent))
    for one, other in zip(found, wanted, strict=True):
        _same("a gradient under checkpointing", one, other)


@rule(tier=2)
def check_functional(subject: Subject) -> None:
    """`functional_call`, `vmap` over rows and over an external `w`, and per-sample gradients agree with ordinary calls.

    Avoid data-dependent branches, `.item()` and in-place operations under function transforms.
    """
    op, other = subject.operator(), subject.operator()
    if subject.promises(op).stochastic:
        skip("the operator is stochastic")
    x = subject.views(3)
    state = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    called = _transform("functional_call", lambda: torch.func.functional_call(op, state, (x,)))
    equal("the output of functional_call", called, subject.forward(other, x))
    promises = subject.promises(op)
    if promises.batch_independent and not promises.once_differentiable_only:
        rows = _transform("vmap over rows", lambda: torch.vmap(lambda *row: op(list(row)))(*x))
        equal("the output of vmap over rows", rows, subject.forward(op, x))
    l = op.calculate_l()
    if not l:
        skip("the operator has no parameters; functional_call works")
    w = torch.randn(4, l, dtype=torch.float64)
    mapped = _transform("vmap over w", lambda: torch.vmap(lambda one: op(x, w=one))(w))
    equal("the output of vmap over w", mapped, torch.stack([subject.forward(op, x, w=one) for one in w]))
    if subject.promises(op).batch_independent:
        _per_sample(op, x, w[0])


def _per_sample(op: Any, x: list[Tensor], w: Tensor) -> None:
    def loss(w: Tensor, *row: Tensor) -> Tensor:
        out: Tensor = op(list(row), w=w).square().sum()
        return out

    gradient = torch.func.grad(loss)
    axes = (None, *(0 for _ in x))
    mapped = _transform("per-sample gradients", lambda: torch.vmap(gradient, in_dims=axes)(w, *x))
    looped = torch.stack([gradient(w, *(view[i] for view in x)) for i in range(len(x[0]))])
    equal("the per-sample gradients", mapped, looped)
