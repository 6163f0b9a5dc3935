"""What operators say besides their output: ``explain``."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusionkit.contract.checks._common import expect_unchanged, expect_value, skip_if, works
from fusionkit.contract.rules import equal, expect, rule
from fusionkit.contract.subject import Subject
from fusionkit.contract.tracking import attributes, stray_tensors
from fusionkit.fusion import Fusion

#: Leading dimensions of the views.
LEADS = ((), (5,), (2, 3))


@rule(tier=2, kinds=("fusion",))
def check_explain(subject: Subject) -> None:
    """`explain` gives the output of `forward`, the keys and shapes of the docstring, and weight 0 to absent views.

    Write the common part of `_fuse` and `_explain` as one function, keep nothing of a call, and name every key with its
    shape in the docstring of the class, such as `weights` (..., k).
    """
    op = subject.operator()
    skip_if(not op.explains(), "the operator says nothing besides its output")
    keys = sorted(works("explain", lambda: op.explain(subject.views(3))))
    for training in (False, True):
        for lead in LEADS:
            x = subject.views(*lead, requires_grad=True)
            masks = [None, _mask(len(x), lead)] if op.takes_masks else [None]
            for mask in masks:
                said = _explains(subject, op.train(training), x, mask)
                expect_value("the keys of explain, in both modes, with and without a mask,", sorted(said), keys)
    with torch.no_grad():  # Where an operator may choose another way to compute.
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            _explains(subject, subject.operator(dtype=dtype), subject.views(5, dtype=dtype), None)
    if op.calculate_l():
        w, x = op.flat_w().detach(), subject.views(3)
        bare = works("explain with w", lambda: op.eval().explain(x, w))
        equal("the output of explain with w", bare["output"], subject.forward(op, x, w=w), exact=True)


def _mask(k: int, lead: Sequence[int]) -> Tensor:
    """Return a random mask (*lead, k); of several rows the first has no view."""
    mask = torch.rand(*lead, k) < 0.6
    if lead:
        mask[(0,) * len(lead)] = False
    return mask


def _explains(subject: Subject, op: Fusion, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
    state, before, stray = copy.deepcopy(op.state_dict()), attributes(op), stray_tensors(op)
    copies = [view.detach().clone() for view in x]
    arguments = {} if mask is None else {"mask": mask}
    seed = int(torch.randint(2**31, ()))
    torch.manual_seed(seed)
    said: dict[str, Any] = works("explain", lambda: op.explain(x, **arguments))
    if not op.training:
        expect_unchanged("explain should change no attribute", before, attributes(op))
    expect_value("the attributes with tensors, after explain,", stray_tensors(op), stray)
    expect(all(map(torch.equal, x, copies)), "explain should leave the views alone", "other values in them")
    torch.manual_seed(seed)
    op.load_state_dict(state)
    out = subject.forward(op, x, **arguments)
    expect("output" in said, "explain should have the key output", f"the keys {', '.join(said)}")
    for key, value in said.items():
        expect(isinstance(value, Tensor), f"{key} of explain should be a tensor", type(value).__name__)
    expect_value("the dtype of the output of explain", said["output"].dtype, out.dtype)
    equal("the output of explain", said["output"], out, exact=True)
    for key, value in said.items():
        expect(value.isfinite().all(), f"{key} of explain should be finite", "others")
        if key != "output":
            _as_documented(op, key, value, out.shape[:-1])
    if "loss" in said:
        expect_value("the shape of loss", tuple(said["loss"].shape), ())
        # Of the views too: encoders may be in front.  In evaluation it may be a constant.
        has_gradient = said["loss"].requires_grad or not (op.training and torch.is_grad_enabled())
        expect(has_gradient, "loss of explain should have a gradient", "none")
    if "weights" in said:
        _weighs(op, said, mask)
    return said


def _as_documented(op: Fusion, key: str, value: Tensor, lead: Sequence[int]) -> None:
    """Expect the docstring to name the key with its shape, such as () or (..., a, b).

    Numbers, k, n and D are verified.
    """
    texts = [inspect.getdoc(cls) or "" for cls in type(op).__mro__ if issubclass(cls, Fusion) and cls is not Fusion]
    found = re.search(rf"`{re.escape(key)}`+\s+\((\.\.\.)?,?\s*([\w\s,+*-]*)\)", "\n".join(texts))
    should = f"the docstring of {type(op).__name__} should name the key {key} of explain with its shape"
    expect(found is not None, should, f"nothing such as `{key}` (..., k)")
    assert found is not None
    names = [name.strip() for name in found[2].split(",") if name.strip()]
    sizes = {"k": len(op.resolve_dims()), "n": op.calculate_n(), "D": sum(op.resolve_dims())}
    sizes |= {name: int(name) for name in names if name.isdigit()}
    shape, leading = tuple(value.shape), tuple(lead) if found[1] else ()
    tail = zip(names, shape[len(leading) :], strict=False)
    fits = len(shape) == len(leading) + len(names) and shape == (*leading, *(sizes.get(*one) for one in tail))
    documented = ", ".join([*(["..."] if found[1] else []), *names])
    expect(fits, f"{key} of explain should have the documented shape ({documented})", str(shape))


def _weighs(op: Fusion, said: dict[str, Tensor], mask: Tensor | None) -> None:
    weights = said["weights"]
    expect_value("the shape of weights", tuple(weights.shape), (*said["output"].shape[:-1], len(op.resolve_dims())))
    replaced = op.stand_in is not None and op.stand_in.kind == "placeholder"
    if mask is not None and not replaced and op.traits.missing != "refuse":
        expect(not weights[~mask].any(), "weights of explain should be 0 where the view is absent", "others")
    gates = said.get("gates")
    if gates is not None and gates.ndim == weights.ndim + 1:
        equal("weights of explain, the mean of gates,", weights, gates.mean(-1))
