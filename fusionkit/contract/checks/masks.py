"""Views that are absent: masks, views that are None, and the option ``missing``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any, get_args

import torch
from torch import Tensor

from fusionkit.contract.checks._common import (
    agrees,
    expect_unchanged,
    expect_value,
    gradients,
    replaced,
    skip_if,
    tensors_of,
    trained,
    works,
)
from fusionkit.contract.checks.compiler import exported, traced
from fusionkit.contract.needs import clean_dynamo
from fusionkit.contract.rules import any_attempt, equal, expect, refuses, rule
from fusionkit.contract.subject import Subject
from fusionkit.contract.tracking import Allocations, attributes
from fusionkit.core.traits import StandIn
from fusionkit.fusion import Fusion

#: What may stand where a view is absent; None stands for random numbers.
JUNK = (None, 1e30, float("inf"), float("nan"))
#: Rows of each pattern of absence.
ROWS = 2


def _operator(subject: Subject, *, dtype: torch.dtype = torch.float64) -> Fusion:
    """Return ``deterministic_operator``; skips the check if it refuses masks."""
    op = subject.deterministic_operator(dtype=dtype)
    skip_if(not op.takes_masks, "the operator refuses masks")
    return op


def _patterns(k: int) -> Tensor:
    """Return patterns of absence (p, k) with at least one present view: all, all but one, one alone, random ones."""
    chosen = {tuple(range(k)), *combinations(range(k), max(1, k - 1)), *combinations(range(k), 1)}
    patterns = [[i in present for i in range(k)] for present in sorted(chosen)]
    random = (torch.rand(3, k) < 0.5).tolist()
    return torch.tensor(patterns + [row for row in random if any(row)])


def _mixed(subject: Subject, scale: float = 1.0, *, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    """Return views whose rows have every pattern of absence, and their mask, in random order."""
    mask = _patterns(len(subject.dims)).repeat(ROWS, 1)
    mask = mask[torch.randperm(len(mask))]
    return [(scale * view).to(dtype) for view in subject.views(len(mask))], mask


def _spoilt(x: Sequence[Tensor], mask: Tensor, value: float | None) -> list[Tensor]:
    """Return copies of the views with another content where the mask is False."""
    return [
        torch.where(mask[..., i : i + 1], view.detach(), torch.randn_like(view) if value is None else value)
        for i, view in enumerate(x)
    ]


def _leaves(x: Sequence[Tensor]) -> list[Tensor]:
    return [view.detach().clone().requires_grad_() for view in x]


@rule()
def check_mask_all_present(subject: Subject) -> None:
    """A mask that is True everywhere changes nothing; rows of zeros and of NaN count as present.

    The mask alone decides what is present, never the values.  Without a `_fuse_masked` of the class the bits are equal.
    """
    op = _operator(subject)
    k = len(subject.dims)
    x = subject.views(2 * k + 2)
    for i, view in enumerate(x):
        view[2 * i], view[2 * i + 1] = 0, torch.nan
        view[-1] = 0
    own = any("_fuse_masked" in vars(cls) for cls in type(op).__mro__ if cls is not Fusion)
    exact = not own and op.stand_in is None
    mask = torch.ones(2 * k + 2, k, dtype=torch.bool)
    equal("the output with a mask that is True", subject.forward(op, x, mask=mask), subject.forward(op, x), exact=exact)


@rule()
def check_mask_content(subject: Subject) -> None:
    """What the mask says is absent changes neither values nor gradients, whatever stands there, and has gradient zero.

    Let the base class fill the views, and use nothing but the views that `_fuse_masked` gets.
    """
    op = _operator(subject)
    others = [op]
    if subject.kind == "fusion" and subject.offers("preprocess") and subject.options.get("preprocess") is None:
        others.append(subject.operator(preprocess={"name": "linear"}))
    x, mask = _mixed(subject)
    for tried in others:
        for training in (False, True):
            if not (training and subject.promises(copy.deepcopy(tried).train()).stochastic):
                _ignores_content(subject, tried.train(training), x, mask)


def _ignores_content(subject: Subject, op: Fusion, x: Sequence[Tensor], mask: Tensor) -> None:
    state = copy.deepcopy(op.state_dict())
    wanted: list[Tensor] = []
    for value in JUNK:
        op.load_state_dict(state)
        views = _leaves(_spoilt(x, mask, value))
        out = subject.forward(op, views, mask=mask)
        found = [out, *gradients(out, [*views, *trained(op)], torch.ones_like(out))]
        what = "random numbers" if value is None else value
        for i, gradient in enumerate(found[1 : 1 + len(x)]):
            absent = gradient[~mask[:, i]]
            expect(not absent.any(), f"absent entries of view {i} should have gradient 0", f"others, with {what} there")
        wanted = wanted or found
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            name = "the output" if not number else f"gradient {number - 1}"
            equal(f"{name} with {what} where a view is absent", one, other)


@rule()
def check_mask_restriction(subject: Subject) -> None:
    """A row equals what the trait `missing` says: `restrict` to its present views, or the filled views.

    In `_fuse_masked`, count and normalize over the present views of each row; if the shapes of the parameters follow
    the views, list them in `per_view`, or write `restrict`.
    """
    op = _operator(subject)
    skip_if(op.stand_in is not None, "the option missing replaces the rule of the operator")
    trains = not subject.promises(copy.deepcopy(op).train()).stochastic
    mixed = subject.promises(op).batch_independent
    for scale in (1.0, 1e10):
        for training in (False, True) if trains else (False,):
            any_attempt(partial(_follows_rule, subject, op.train(training), scale, mixed))


def _follows_rule(subject: Subject, op: Fusion, scale: float, mixed: bool) -> None:
    """Expect rows of all patterns to follow the rule: in one batch, or where rows depend on each other one by one."""
    x, mask = _mixed(subject, scale)
    # Differences of large views, as in a norm or a softmax, keep their rounding.
    precision = torch.float64 if scale == 1 else torch.float32
    for given in [mask] if mixed else [pattern.expand(len(mask), -1) for pattern in mask.unique(dim=0)]:
        _rows_follow_rule(subject, op, x, given, precision)


def _rows_follow_rule(subject: Subject, op: Fusion, x: Sequence[Tensor], mask: Tensor, precision: torch.dtype) -> None:
    views = _leaves(x)
    out = subject.forward(op, views, mask=mask)
    with torch.no_grad():
        equal("the output without recording", subject.forward(op, x, mask=mask), out)
    cotangent = torch.randn_like(out)
    found = gradients(out, views, cotangent)
    for pattern in mask.unique(dim=0):
        rows = (mask == pattern).all(-1)
        present = pattern.nonzero().flatten().tolist()
        rule = f"restrict({present})" if op.traits.missing == "skip" else f"views filled with {op.fill:g}"
        names = f"of rows with the views {present}, which should be that of {rule},"
        part = _leaves([view[rows] for view in x])
        wanted = _by_rule(subject, op, part, present, mask[rows])
        equal(f"the output {names}", out[rows], wanted, as_dtype=precision)
        for i, gradient in enumerate(gradients(wanted, part, cotangent[rows])):
            if i in present:
                equal(f"the gradient of view {i} {names}", found[i][rows], gradient, as_dtype=precision)


def _by_rule(subject: Subject, op: Fusion, x: Sequence[Tensor], present: Sequence[int], mask: Tensor) -> Tensor:
    """Return what the trait says about rows that all have these views."""
    if op.traits.missing == "skip":
        less = works(f"restrict({list(present)})", lambda: op.restrict(present))
        expect_value(f"the dims of restrict({list(present)})", less.dims, tuple(subject.dims[i] for i in present))
        return subject.forward(less, [x[i] for i in present])
    bare = copy.deepcopy(op)
    bare.preprocess = None
    views = list(x) if op.preprocess is None else op.preprocess(x)
    filled = [view if i in present else torch.full_like(view, op.fill) for i, view in enumerate(views)]
    reference: Any = getattr(op, "reference", None)
    if reference is not None and "mask" in inspect.signature(reference).parameters:
        return reference(filled, mask)  # type: ignore[no-any-return]
    return subject.forward(bare, filled)


@rule()
def check_mask_none_entry(subject: Subject) -> None:
    """A view that is None is one whose column of the mask is False, at any place and beside a mask.

    Leave `forward` to the base class; do not drop a view, which would shift the weights of the others.
    """
    op = _operator(subject)
    skip_if(len(subject.dims) < 2, "the case has one view")
    x = subject.views(4)
    given = torch.rand(4, len(x)) < 0.7
    for i in range(len(x)):
        given[:, (i + 1) % len(x)] = True
        for mask in (None, given):
            column = torch.ones_like(given) if mask is None else mask.clone()
            column[:, i] = False
            arguments = {} if mask is None else {"mask": mask}
            found = subject.forward(op, replaced(x, i, None), **arguments)
            equal(f"the output where view {i} is None", found, subject.forward(op, x, mask=column))


@rule()
def check_mask_permutation(subject: Subject) -> None:
    """Exchanging views together with their columns of the mask changes nothing, where `permutation_invariant` holds.

    Do not tell views apart by their place.
    """
    op = _operator(subject)
    skip_if(not subject.promises(op).permutation_invariant, "permutation_invariant is not declared")
    skip_if(op.stand_in is not None, "the option missing has parameters of each view")
    x, mask = _mixed(subject)
    k = len(x)
    skip_if(k < 2 or len(set(subject.dims)) > 1, "the case has no two views of equal width")
    order = [*range(1, k), 0]
    found = subject.forward(op, [x[i] for i in order], mask=mask[:, order])
    equal("the output of exchanged views", found, subject.forward(op, x, mask=mask))


@rule()
def check_mask_batch(subject: Subject) -> None:
    """A row is masked alone; 0 to 3 leading dimensions, an empty batch, strided and expanded masks work.

    The mask has the leading dimensions of the views and one entry per view in its last dimension.
    """
    op = _operator(subject)
    x, mask = _mixed(subject)
    wanted = subject.forward(op, x, mask=mask)
    strided = mask.t().contiguous().t()
    equal("the output with a strided mask", subject.forward(op, x, mask=strided), wanted)
    one = mask[:1].expand(len(mask), -1)
    found = subject.forward(op, x, mask=one)
    equal("the output with an expanded mask", found, subject.forward(op, x, mask=one.contiguous()))
    empty = subject.forward(op, [view[:0] for view in x], mask=mask[:0])
    expect_value("the shape for an empty batch", tuple(empty.shape), (0, wanted.shape[-1]))
    if subject.promises(op).batch_independent:
        for row in (0, len(mask) - 1):
            alone = subject.forward(op, [view[row] for view in x], mask=mask[row])
            equal(f"row {row} alone", alone, wanted[row])
        lead = (2, 1, len(mask) // 2)
        shaped = [view[: 2 * lead[-1]].reshape(*lead, -1) for view in x]
        found = subject.forward(op, shaped, mask=mask[: 2 * lead[-1]].reshape(*lead, -1))
        equal("the output of three leading dimensions", found.flatten(0, 2), wanted[: 2 * lead[-1]])


@rule()
def check_mask_empty_row(subject: Subject) -> None:
    """A row without any view gives one finite value, and finite gradients, zero for the views; also in half precision.

    Make scores finite before a softmax, not after it, and divide by a count of at least 1.
    """
    _operator(subject)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        op = subject.operator(dtype=dtype)
        mask = _patterns(len(subject.dims))[:1].repeat(4, 1)
        mask[1] = mask[2] = False
        x = _leaves(view.to(dtype) for view in subject.views(4))  # type: ignore[arg-type]
        out = subject.forward(op, x, mask=mask)
        empty = f"a row without any view in {dtype}"
        expect(out[1:3].isfinite().all(), f"{empty} should be finite", str(out[1].tolist())[:100])
        if subject.promises(op).batch_independent:
            equal(f"{empty}, beside another,", out[1], out[2])
        for number, gradient in enumerate(gradients(out[1:3], [*x, *trained(op)])):
            name = f"view {number}" if number < len(x) else f"parameter {number - len(x)}"
            expect(gradient.isfinite().all(), f"the gradient of {name} for {empty} should be finite", "others")
            if number < len(x):
                expect(not gradient[1:3].any(), f"the gradient of {name} for {empty} should be 0", "others")


@rule()
def check_mask_untouched(subject: Subject) -> None:
    """A call with a mask changes neither the mask nor the operator, and the next call without one is as before.

    Keep nothing of the mask, and write to a copy.
    """
    op = _operator(subject)
    x, mask = _mixed(subject)
    mask[0] = False
    given = mask.clone()
    plain, before = subject.forward(op, x), attributes(op)
    subject.forward(op, x, mask=mask)
    expect(torch.equal(mask, given), "the mask should stay as it is", "a changed one")
    expect_unchanged("a call with a mask should change no attribute", before, attributes(op))
    equal("the next call without a mask", subject.forward(op, x), plain, exact=True)


@rule()
def check_mask_refused(subject: Subject) -> None:
    """A mask that does not fit, and views that are all None, raise a `FusionError`; so does one that is refused.

    Leave the validation to the base class.  An operator that cannot have absent views keeps `missing="refuse"`.
    """
    op = subject.operator()
    k = len(subject.dims)
    x, mask = subject.views(3), torch.ones(3, k, dtype=torch.bool)
    if not op.takes_masks:
        written = any("_fuse_masked" in vars(cls) for cls in type(op).__mro__ if cls is not Fusion)
        declared = type(op).traits.missing != "refuse"  # An instance may refuse what its class takes.
        should = "a class with _fuse_masked should declare the trait missing"
        expect(declared or not written, should, "refuse, which is the default")
        refuses(partial(op, x, mask=mask), "a mask", names=[op.name, "placeholder"])
        if k > 1:
            refuses(partial(op, [*x[:-1], None]), "a view that is None", names=[op.name, "placeholder"])
        return
    refuses(partial(op, [None] * k), "views that are all None")
    wrong: dict[str, Any] = {
        "a mask of one more view": torch.ones(3, k + 1, dtype=torch.bool),
        "a mask of another batch": torch.ones(4, k, dtype=torch.bool),
        "a mask for all rows": torch.ones(k, dtype=torch.bool),
        "a mask of numbers": mask.double(),
        "a list as a mask": mask.tolist(),
        "a mask on another device": mask.to("meta"),
    }
    for what, value in wrong.items():
        refuses(partial(op, x, mask=value), what)


@rule(scope="first", kinds=("fusion",))
def check_mask_options(subject: Subject) -> None:
    """Each value of the option `missing` follows its formula; l counts its parameters, and all of them are trained.

    `calculate_l` counts the parameters of the class; the base class adds those of the option.
    """
    skip_if(subject.deterministic_operator().stand_in is not None, "the case has the option missing")
    for kind in get_args(StandIn):
        op = subject.operator()
        if kind == "rescale" and not op.traits.linear:
            continue
        plain = copy.deepcopy(op)
        op.add_missing(kind)
        op.double()  # An instance was made in another dtype.
        subject.randomize(op)
        plain.load_state_dict(op.state_dict(), strict=False)
        own = sum(parameter.numel() for _, parameter in subject.own(op))
        expect_value(f"calculate_l() with missing={kind!r}", op.calculate_l(), own)
        x, mask = _mixed(subject)
        mask[0] = False  # The only absent view, where there is one view.
        out = subject.forward(op, x, mask=mask)
        equal(f"the output with missing={kind!r} and w", subject.forward(op, x, w=op.flat_w().detach(), mask=mask), out)
        part = op.stand_in
        assert part is not None
        if (op.preprocess, op.postprocess) == (None, None):
            equal(f"the output with missing={kind!r}", out, _by_formula(subject, op, plain, x, mask))
        if kind != "rescale" and not subject.promises(op).constant and not subject.leaves_nothing(op):
            moved = [gradient != 0 for gradient in gradients(out, list(part.parameters()), torch.randn_like(out))]
            # A maximum may take no entry of a placeholder.
            alive = all(map(torch.all, moved)) if kind == "indicator" else any(map(torch.any, moved))
            expect(alive, f"the parameters of missing={kind!r} should have a gradient", "zeros")


def _by_formula(subject: Subject, op: Fusion, plain: Fusion, x: Sequence[Tensor], mask: Tensor) -> Tensor:
    part = op.stand_in
    assert part is not None
    if part.kind == "placeholder":
        pieces = part.placeholder.split(list(subject.dims))
        return subject.forward(plain, [torch.where(mask[:, i : i + 1], x[i], m) for i, m in enumerate(pieces)])
    if op.traits.missing == "refuse":
        out = subject.forward(plain, [torch.where(mask[:, i : i + 1], view, op.fill) for i, view in enumerate(x)])
    else:
        out = subject.forward(plain, x, mask=mask)
    if part.kind == "rescale":
        return out * (len(x) / mask.sum(-1, keepdim=True).clamp(min=1))
    return out + (~mask).to(out.dtype) @ part.indicator


@rule(tier=2)
def check_mask_functional(subject: Subject) -> None:
    """`vmap` over the mask, forward mode, an external `w`, autocast, every dtype and little memory, with a mask.

    Read no value of the mask in Python.
    """
    op = _operator(subject)
    x, mask = _mixed(subject)
    wanted = subject.forward(op, x, mask=mask)
    promises = subject.promises(op)
    others = torch.stack([mask, mask.flip(0), torch.ones_like(mask)])
    if not promises.once_differentiable_only:
        mapped = works("vmap over the mask", lambda: torch.vmap(lambda one: op(x, mask=one))(others))
        equal("the output of vmap over the mask", mapped, torch.stack([op(x, mask=one) for one in others]))
        moves = [torch.randn_like(view) for view in x]

        def call(*views: Tensor) -> Any:
            return op(list(views), mask=mask)

        forward: Any = torch.func.jvp
        slope = works("forward mode with a mask", lambda: forward(call, tuple(x), tuple(moves))[1])
        views = _leaves(x)
        cotangent = torch.randn_like(slope)
        backward = gradients(subject.forward(op, views, mask=mask), views, cotangent)
        wanted_slope = torch.stack([(g * m).sum() for g, m in zip(backward, moves, strict=True)]).sum()
        found = (slope * cotangent).sum()
        equal("forward mode with a mask, beside backward mode,", found, wanted_slope, as_dtype=torch.float32)
    if op.calculate_l():
        w = op.flat_w().detach()
        equal("the output with a mask and w", subject.forward(op, x, w=w, mask=mask), wanted)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        low = copy.deepcopy(op).to(dtype)
        out = subject.forward(low, [view.to(dtype) for view in x], mask=mask)
        expect_value(f"the dtype with a mask in {dtype}", out.dtype, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        auto = subject.forward(copy.deepcopy(op).float(), [view.float() for view in x], mask=mask)
    expect(auto.isfinite().all(), "the output under autocast with a mask should be finite", "others")
    if subject.case.origin == "example":
        _uses_little_memory(subject)


def _uses_little_memory(subject: Subject) -> None:
    op = subject.operator(dtype=torch.float32)
    rows = -(-(2**20) // (4 * sum(subject.dims)))
    x = subject.views(rows, dtype=torch.float32, requires_grad=True)
    mask = torch.rand(rows, len(x)) < 0.5
    with Allocations([*x, mask, *tensors_of(op).values()]) as counter:
        out = subject.forward(op, x, mask=mask)
        if out.requires_grad:
            out.backward(torch.ones_like(out))
    sizes = sum(tensor.nbytes for tensor in (*x, out, *op.parameters()))
    factor = subject.promises(op).memory_factor
    should = f"with a mask the peak of extra memory should be at most {factor:g} times inputs, output and parameters"
    expect(counter.peak <= factor * sizes, should, f"{counter.peak / sizes:.1f} times")


@rule(tier=2, scope="first")
def check_mask_compiled(subject: Subject) -> None:
    """Compiled whole, a mask gives the same values, and other patterns of absence need no other graph.

    Let no Python branch read the mask.
    """
    op = _operator(subject, dtype=torch.float32)
    x, mask = _mixed(subject, dtype=torch.float32)
    with clean_dynamo(), torch.no_grad():
        compiled, graphs = traced(op)
        for given in (mask, mask.flip(0), torch.ones_like(mask), torch.zeros_like(mask)):
            found = works("torch.compile with a mask", partial(compiled, x, mask=given))
            agrees(subject, "the compiled output with a mask", found, op, x, mask=given)
    expect_value("the number of graphs for four masks", len(graphs), 1)


@rule(tier=2, scope="first")
def check_mask_exported(subject: Subject) -> None:
    """`torch.export` with a dynamic batch and a mask, saved and loaded again, computes the same for another batch.

    Let no decision depend on the number of rows, or on the mask.
    """
    op = _operator(subject, dtype=torch.float32)
    x, y = (subject.views(rows, dtype=torch.float32) for rows in (4, 7))
    first, mask = (torch.rand(rows, len(x)) < 0.6 for rows in (4, 7))
    with clean_dynamo(), torch.no_grad():
        loaded = exported(op, x, first)
        found = works("the exported program", lambda: loaded(y, mask=mask))
    agrees(subject, "the output of the exported program with a mask", found, op, y, mask=mask)
