"""Views that do not fit, views in other containers and memory layouts, and what a call may do to them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import warn_if_has_hooks

from fusionkit.contract.checks._common import (
    agrees,
    at_drawn_sizes,
    expect_influence,
    gradients,
    random_w,
    replaced,
    shares_memory,
    skip_if,
    trained,
)
from fusionkit.contract.rules import Violation, equal, expect, no_error, refuses, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.contract.trait_checks import verify
from fusionkit.errors import DimsError
from fusionkit.fusion import Fusion


@rule()
def check_all_inputs_matter(subject: Subject) -> None:
    """Every view influences the output, unless `constant` is declared and true.

    Loop over all of `x`.  A fabrication whose W is fixed, and may be zero, declares `Traits(constant=True)`; one whose
    W has too few entries for every view where n is small, `Traits(may_ignore_views=True)`.
    """
    op = subject.operator()
    if op.traits.constant:
        x, y = subject.views(16), subject.views(16)
        equal("the output of an operator that is declared constant", subject.forward(op, x), subject.forward(op, y))
        skip("the operator is declared constant")
    fixed = [found for found in subject.prepared(op) if found[1].traits.constant]
    for _, fabrication, n, widths in fixed:
        D = sum(widths)
        one, other = (fabrication.materialize(random_w(fabrication, n, D), n, D) for _ in range(2))
        equal("W of a fabrication that is declared constant, for another w,", one, other, exact=True)
    skip_if(fixed, "the fabrication is declared constant")
    skip_if(subject.promises(op).stochastic, "the operator is stochastic")
    skip_if(subject.leaves_nothing(op), "at this generated size the output is constant")
    expect_influence(subject, op, subject.views(16), "")
    for resized, rows, size in at_drawn_sizes(subject):
        op = resized.operator()
        if not resized.leaves_nothing(op):
            expect_influence(resized, op, resized.views(rows), f" of {size}")


@rule()
def check_wrong_dims(subject: Subject) -> None:
    """Views of a wrong width or number raise a `DimsError` that names the view, what was found and what should be.

    Leave the validation of `forward` to the base class; do not override `forward`.
    """
    op = subject.operator()
    dims = subject.dims
    for i, width in enumerate(dims):
        wrong = subject.views(2, dims=replaced(dims, i, width + 1))
        names = [f"view {i}", width + 1, width]
        refuses(partial(op, wrong), f"view {i} of width {width + 1}", DimsError, names)
    for other in (dims[:-1], (*dims, dims[-1])):
        if other:
            wrong = subject.views(2, dims=other)
            refuses(partial(op, wrong), f"{len(other)} views", DimsError, [len(other), len(dims)])


@rule()
def check_batch_mismatch(subject: Subject) -> None:
    """Views with different leading dimensions raise a `FusionError`, also where torch would broadcast them.

    Leave the validation of `forward` to the base class; do not override `forward`.
    """
    skip_if(len(subject.dims) < 2, "the case has one view")
    op = subject.operator()
    for first, others in (((3,), (2,)), ((3,), (1,)), ((1,), (3,)), ((2, 3), (3,)), ((3,), (1, 3)), ((0,), (1,))):
        x = [*subject.views(*first)[:1], *subject.views(*others)[1:]]
        refuses(partial(op, x), f"views with the leading dimensions {first} and {others}")


@rule(kinds=("fusion",), scope="examples")
def check_processing(subject: Subject) -> None:
    """`preprocess` is applied to each view, and `postprocess` to the result.

    Pass both to `super().__init__`, and leave `forward` to the base class.
    """
    options = ("preprocess", "postprocess")
    skip_if(not subject.offers(*options), "the constructor does not take preprocess and postprocess")
    skip_if(any(subject.options.get(option) is not None for option in options), "the case has a processing of its own")
    op = subject.deterministic_operator()
    x = subject.views(3)
    inside, outside = subject.operator(preprocess={"name": "tanh"}), subject.operator(postprocess={"name": "sigmoid"})
    inside.load_state_dict(op.state_dict())
    outside.load_state_dict(op.state_dict())
    wanted = subject.forward(op, [view.tanh() for view in x])
    equal("the output with a preprocess", subject.forward(inside, x), wanted)
    equal("the output with a postprocess", subject.forward(outside, x), subject.forward(op, x).sigmoid())


@rule(tier=2, kinds=("fusion",), scope="first")
def check_container_types(subject: Subject) -> None:
    """A list and a tuple of views are the same; anything else, or a view that is no tensor, raises a `FusionError`.

    Leave the validation of `forward` to the base class; do not override `forward`.
    """
    op = subject.operator()
    x = subject.views(3)
    agrees(subject, "the output for a tuple", subject.forward(op, tuple(x)), op, x)
    wrong: dict[str, Any] = {
        "None": None,
        "one tensor": x[0],
        "a dict": dict(enumerate(x)),
        "a generator": (view for view in x),
        "a text": "views",
        "a list with an array": [*x[:-1], x[-1].numpy()],
        "a list with a list": [*x[:-1], x[-1].tolist()],
    }
    if not op.takes_masks:
        wrong["a list with None"] = [*x[:-1], None]
    for what, value in wrong.items():
        refuses(partial(op, value), f"{what} as x")


@rule()
def check_noncontiguous(subject: Subject) -> None:
    """Transposed, strided, expanded, sliced and repeated views, and those of a subclass, give what their copies give.

    Use `reshape` instead of `view`, and depend on no strides and no `id`, in a backward also not on the gradient's.
    """
    op = subject.deterministic_operator()
    given = {
        f"the output of {rows} rows of {what} views": [make(rows, width) for width in subject.dims]
        for rows in (4, 70)
        for what, make in LAYOUTS.items()
    }
    for i, width in enumerate(subject.dims):
        x = replaced(subject.views(4), i, LAYOUTS["transposed"](4, width))
        given[f"the output when view {i} alone is transposed"] = x
    one = {width: _random(4, width) for width in subject.dims}
    given["the output of one tensor given as several views"] = [one[width] for width in subject.dims]
    for what, x in given.items():
        copies = [view.as_subclass(Tensor).contiguous().clone() for view in x]
        equal(what, subject.forward(op, x), subject.forward(op, copies))
    _strided_gradient(subject, op)


def _strided_gradient(subject: Subject, op: Fusion) -> None:
    """Expect the gradients for an expanded and a transposed gradient of the output to be those for its copy."""
    x = subject.views(4, requires_grad=True)
    n = op.calculate_n()
    for what, cotangent in (("an expanded", _random(1, 1).expand(4, n)), ("a transposed", _random(n, 4).t())):
        found, wanted = (
            gradients(subject.forward(op, x), [*x, *trained(op)], given)
            for given in (cotangent, cotangent.contiguous().clone())
        )
        for one, other in zip(found, wanted, strict=True):
            equal(f"a gradient by {what} gradient of the output", one, other)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class _Labelled(Tensor):
    """A subclass that changes nothing."""


LAYOUTS: dict[str, Callable[[int, int], Tensor]] = {
    "transposed": lambda rows, width: _random(width, rows).t(),
    "strided": lambda rows, width: _random(rows, 2 * width)[:, ::2],
    "expanded": lambda rows, width: _random(1, width).expand(rows, width),
    "offset": lambda rows, width: _random(rows + 3, width)[3:],
    "sliced": lambda rows, width: _random(2 * rows + 1, width + 3)[1::2, 2 : 2 + width],
    "permuted": lambda rows, width: _random(3, width, rows // 2).permute(2, 0, 1),
    "labelled": lambda rows, width: _random(rows, width).as_subclass(_Labelled),
}


@rule(basic=True)
def check_no_input_mutation(subject: Subject) -> None:
    """A call and its backward pass leave the views, the list of them, and an external `w` as they were.

    Avoid in-place operations on the arguments of `_fuse`; the first sum may need a copy.
    """
    for requires_grad in (False, True):
        op = subject.operator()
        _unchanged(subject, op, subject.views(3, requires_grad=requires_grad))
        _unchanged(subject, op, tuple(subject.views(3, requires_grad=requires_grad)))
        _unchanged(subject, op, subject.views(3), w=op.flat_w().detach().clone().requires_grad_(requires_grad))
    # A view may be the result of other operations.
    _unchanged(subject, op, [view.clone() for view in subject.views(3, requires_grad=True)])
    # Without a graph, and in float32, an operator may take a faster path.
    with torch.no_grad():
        _unchanged(subject, subject.operator(), subject.views(3))
        _unchanged(subject, subject.operator(dtype=torch.float32), subject.views(3, dtype=torch.float32))


def _unchanged(subject: Subject, op: Fusion, x: Sequence[Tensor], **arguments: Tensor) -> None:
    tensors = {f"view {i}": view for i, view in enumerate(x)} | arguments
    before = {name: (tensor.detach().clone(), tensor._version) for name, tensor in tensors.items()}
    given = [id(view) for view in x]
    out = subject.forward(op, x, **arguments)
    for during in ("forward", "backward"):
        if during == "backward":
            if not out.requires_grad:
                return
            with no_error("the backward pass should work on what a call returns"):
                out.square().sum().backward()
        same = [id(view) for view in x] == given
        expect(same, f"the {type(x).__name__} of views should be left alone", f"{len(x)} other views")
        for name, tensor in tensors.items():
            value, version = before[name]
            same = torch.equal(tensor.detach(), value)
            expect(same, f"{name} should keep its values during {during}", "other values")
            left = "a hook" if _has_hook(tensor) else "retain_grad" if tensor.retains_grad else ""
            expect(not left, f"{name} should be left without a hook", left)
            writes = tensor._version - version
            expect(not writes, f"{name} should not be written to", f"{writes} in-place writes")


def _has_hook(tensor: Tensor) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_has_hooks(tensor)
    return bool(caught)


@rule(tier=2, kinds=("fusion",), scope="none")
def check_output_aliasing(subject: Subject) -> None:
    """The output shares memory with a view if and only if `aliases_input` is declared.

    Return a copy (`x[0].clone()`) where nothing is computed, or declare it.
    """
    should = "the output should share no memory with a view"
    if subject.traits.aliases_input:
        verify(subject, "aliases_input", _aliases, should)
        return
    # Once is enough: a single view may be returned as it is, where several are combined.
    for case in subject.cases():
        if case.origin != "crossed" and _aliases(subject.at(case)):
            raise Violation(f"{should}, or aliases_input should be declared", f"the memory of one for {case}")


def _aliases(subject: Subject) -> bool:
    op = subject.operator()
    x = subject.views(3)
    return shares_memory(subject.forward(op, x), x)
