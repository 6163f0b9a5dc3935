"""Derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fusionkit.contract.rules import Violation, describe, expect, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.fusion import Fusion

#: Up to this many entries of the Jacobian each is compared; above, a random projection of it.
SLOW_ENTRIES = 600


@rule()
def check_gradcheck(subject: Subject) -> None:
    """The gradients of views, parameters and an external `w` agree with finite differences in float64.

    Look for `.detach()`, `.data`, `torch.no_grad()` and integer arithmetic in `_fuse`.
    """
    op = subject.operator()
    if op.traits.stochastic:
        skip("the operator is stochastic")
    x = subject.views(2, requires_grad=True)
    subject.forward(op, x)
    function, inputs = with_parameters(op, x)
    _gradcheck("views and parameters", function, inputs)
    w = op.flat_w().detach().requires_grad_()
    if w.numel():
        k = len(x)
        _gradcheck("views and an external w", lambda *args: op(list(args[:k]), w=args[k]), (*x, w))


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
