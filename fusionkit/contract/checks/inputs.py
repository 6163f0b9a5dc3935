"""Views that do not fit, and what a call may do to those that do."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from fusionkit.contract.rules import expect, rule
from fusionkit.contract.subject import Subject
from fusionkit.errors import DimsError


@rule()
def check_wrong_dims(subject: Subject) -> None:
    """Views of a wrong width or number are a `DimsError` that names the view, what was found and what should be.

    Leave the validation of `forward` to the base class; do not override `forward`.
    """
    op = subject.operator()
    dims = subject.dims
    for i, width in enumerate(dims):
        wrong = [*dims[:i], width + 1, *dims[i + 1 :]]
        _refuses(op, subject.views(2, dims=wrong), f"view {i} of width {width + 1}", (i, width + 1, width), f"view {i}")
    few, many = dims[:-1], (*dims, dims[-1])
    if few:
        _refuses(op, subject.views(2, dims=few), f"{len(few)} views", (len(few), len(dims)))
    _refuses(op, subject.views(2, dims=many), f"{len(many)} views", (len(many), len(dims)))


def _refuses(op: object, x: Sequence[Tensor], what: str, numbers: Sequence[int], phrase: str = "") -> None:
    should = f"{what} should be refused with a DimsError that names {phrase + ' and ' if phrase else ''}{list(numbers)}"
    try:
        op(x)  # type: ignore[operator]
    except DimsError as error:
        message = str(error)
        named = set(map(int, re.findall(r"\d+", message)))
        expect(named.issuperset(numbers) and phrase in message.lower(), should, repr(message))
    except Exception as error:
        expect(False, should, f"{type(error).__name__}: {error}")
    else:
        expect(False, should, "no error")


@rule()
def check_no_input_mutation(subject: Subject) -> None:
    """A call and its backward pass leave the views, the list that holds them, and an external `w` as they were.

    Avoid in-place operations on the arguments of `_fuse`; the first sum may need a copy.
    """
    for requires_grad in (False, True):
        op = subject.operator()
        for x in (subject.views(3, requires_grad=requires_grad), tuple(subject.views(3, requires_grad=requires_grad))):
            _unchanged(subject, op, x, None)
        w = op.flat_w().detach().clone().requires_grad_(requires_grad)
        _unchanged(subject, op, subject.views(3), w)


def _unchanged(subject: Subject, op: object, x: Sequence[Tensor], w: Tensor | None) -> None:
    tensors = {f"view {i}": view for i, view in enumerate(x)} | ({} if w is None else {"w": w})
    before = {name: (tensor.detach().clone(), tensor._version) for name, tensor in tensors.items()}
    held = list(x)
    out = subject.forward(op, x, **({} if w is None else {"w": w}))
    if out.requires_grad:
        out.square().sum().backward()
    expect(
        len(x) == len(held) and all(a is b for a, b in zip(x, held, strict=True)),
        f"the {type(x).__name__} of views should be left alone",
        f"{len(x)} other views",
    )
    for name, tensor in tensors.items():
        value, version = before[name]
        expect(
            torch.equal(tensor.detach(), value),
            f"{name} should keep its values during forward and backward",
            "other values",
        )
        expect(
            tensor._version == version,
            f"{name} should not be written to",
            f"{tensor._version - version} in-place writes",
        )
