"""Dtypes, devices, and extreme and non-finite values."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionkit.contract.checks._common import expect_nowhere, expect_value, gradients, skip_if, trained, works
from fusionkit.contract.rules import TOLERANCE, any_attempt, equal, expect, has_shape, refuses, rule
from fusionkit.contract.subject import Subject
from fusionkit.fusion import Fusion

#: Rows, and scales and shifts of the views, beyond (3, 1, 0).
MAGNITUDES = ((300, 1.0, 0.0), (3, 1e-3, 0.0), (3, 100.0, 0.0), (3, 1e4, 0.0), (3, 1.0, 1000.0))
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@rule()
def check_dtype_preserved(subject: Subject) -> None:
    """The output has the dtype of the views, and is near that of float64; other dtypes raise a `FusionError`.

    The values, and the gradients of the views, may differ from those of float64 by 16 (24) times what rounding the
    views and parameters once changes.  Create constants with the dtype of the views and buffers with `**self._factory`;
    cast back what was computed in float32; subtract before squaring.
    """
    for dtype in DTYPES:
        wide = subject.operator()
        cast = copy.deepcopy(wide).to(dtype)
        for how, op in (("built", subject.operator(dtype=dtype)), ("cast", cast)):
            out = subject.forward(op, subject.views(3, dtype=dtype))
            expect_value(f"the dtype of the output of an operator {how} as {dtype}", out.dtype, dtype)
        constant = subject.leaves_nothing(wide)  # Rounding alone would decide.
        if dtype != torch.float64 and not constant and not subject.promises(cast).stochastic:
            # At other scales half precision may overflow; extreme_values tests that.
            more = MAGNITUDES if dtype == torch.float32 and subject.case.origin == "example" else ()
            for given in ((3, 1.0, 0.0), *more):
                any_attempt(partial(_as_wide, subject, wide, cast, dtype, *given), tries=6)
    op = subject.operator()
    for wrong in (torch.int64, torch.bool):
        refuses(partial(op, [torch.ones(2, width).to(wrong) for width in subject.dims]), f"views of dtype {wrong}")
    if len(subject.dims) > 1:
        x = subject.views(2)
        refuses(partial(op, [x[0].float(), *x[1:]]), "views of dtype float32 and float64")


def _as_wide(
    subject: Subject, wide: Fusion, op: Fusion, dtype: torch.dtype, rows: int, scale: float, shift: float
) -> None:
    """Expect output and gradients to be near those of the same numbers in float64.

    Args:
        subject: the subject.
        wide: the operator in float64.
        op: its copy in ``dtype``.
        dtype: which to test.
        rows: of the views.
        scale: of the views, scale * x + shift.
        shift: of the views.
    """
    exact = [(scale * view + shift).requires_grad_() for view in subject.views(rows)]
    x = [view.detach().to(dtype).requires_grad_() for view in exact]
    y = [view.detach().double().requires_grad_() for view in x]
    out = [subject.forward(wide, exact), subject.forward(op, x), subject.forward(copy.deepcopy(op).double(), y)]
    weights = torch.randn_like(out[0])
    parts = [[one.detach()] for one in out]
    if subject.case.origin != "crossed":  # The fabrications have cases of their own.
        for part, one, views in zip(parts, out, (exact, x, y), strict=True):
            part += gradients(one, views, weights.to(one))
    # Terms of 1 in the formula, and gradients that cancel, are rounded too.
    size = float(weights.norm() * out[2].detach().norm())
    smallest = [out[0].numel() ** 0.5, *(size / max(float(view.detach().norm()), 1.0) for view in y)]
    for i, (unrounded, found, wanted) in enumerate(zip(*parts, strict=True)):
        if not wanted.isfinite().all() or wanted.abs().max() > torch.finfo(dtype).max / 16:
            return
        what = f"the gradient of view {i - 1}" if i else "the output"
        once = float((unrounded - wanted).norm())
        rounding = torch.finfo(dtype).eps * (float(wanted.norm()) + smallest[i])
        # Sums within the formula may cancel; in half precision so wide a room would hide errors of a percent.
        allowed = (24 if i else 16) * once + (16 if dtype == torch.float32 else 1) * rounding
        gap = float((found.double() - wanted).norm())
        at = f" for {rows} rows of {shift:g} ± {scale:g}"
        should = f"{what} in {dtype}{at} should be within {allowed:.3g} of that in float64"
        expect(gap <= allowed, should, f"a difference of {gap:.3g}")


@rule()
def check_device_preserved(subject: Subject) -> None:
    """The output is on the device of the views (cpu, meta, cuda if there is one), or on the one that the call names.

    Views on several devices raise a `FusionError`.  Create constants with the device of the views, buffers with
    `**self._factory`; call no `.item()` or `.tolist()`; leave `forward` to the base class.
    """
    devices = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        op = subject.operator().to(device) if device == "cuda" else subject.build(device=device, dtype=torch.float64)
        out = subject.forward(op.eval(), subject.views(3, device=device))
        expect_value(f"the device of the output for views on {device}", out.device.type, device)
        has_shape(f"the output on {device}", out, (3, op.calculate_n()))
    op = subject.operator()
    x = subject.views(3)
    if len(x) > 1:
        refuses(partial(op, [*x[:-1], x[-1].to("meta")]), "views on the cpu and on meta")
    given: list[tuple[str, dict[str, Any]]] = [("device='meta'", {"device": "meta"})]
    if l := op.calculate_l():
        refuses(partial(op, [view.to("meta") for view in x]), "views on meta for parameters on the cpu")
        w = torch.zeros(l, dtype=torch.float64)
        given.append(("w and device='meta'", {"w": w, "device": torch.device("meta")}))
    there = subject.build(device="meta", dtype=torch.float64).eval()
    for what, arguments in given:
        out = subject.forward(there, x, **arguments)
        expect(out.is_meta, f"forward with {what} should move what it gets to meta", f"an output on {out.device}")


@rule(tier=2)
def check_reference(subject: Subject) -> None:
    """The output equals `reference(x)`, if the class has one.

    Correct whichever of the two does not follow the formula of the docstring.
    """
    op = subject.operator()
    reference = getattr(op, "reference", None)
    skip_if(reference is None, "the class defines no reference")
    for lead in ((5,), (2, 3)):
        x = subject.views(*lead)
        equal("the output", subject.forward(op, x), _call(reference, x))
    single = copy.deepcopy(op).float()
    x = subject.views(5, dtype=torch.float32)
    equal("the output in float32", subject.forward(single, x), _call(single.reference, x), as_dtype=torch.float32)


def _call(reference: Any, x: list[Tensor]) -> Tensor:
    out = works("reference(x)", lambda: reference(x))
    expect(isinstance(out, Tensor), "reference(x) should return a tensor", type(out).__name__)
    return out  # type: ignore[no-any-return]


@rule(tier=2)
def check_nonfinite(subject: Subject) -> None:
    """As many outputs as depend on a NaN are NaN; those that depend on an Inf are finite exactly as in float64.

    Do not replace NaN (`nan_to_num`, comparisons, `fmax`) or infinity (`clamp`); let it through.  A row of zeros gives
    no NaN, in the output or a gradient: add a small number within a root or below a fraction.
    """
    op = subject.deterministic_operator()
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        _no_nan_for_zeros(subject, copy.deepcopy(op).to(dtype), dtype)
    for i, width in enumerate(subject.dims):
        x = subject.views(3)
        j = width // 2
        x[i].requires_grad_()
        depends = _depends(subject.forward(op, x), x[i], j)
        x[i].requires_grad_(False)
        for value in (float("nan"), float("inf"), -float("inf")):
            spoilt = [view.clone() for view in x]
            spoilt[i][1, j] = value
            out = subject.forward(op, spoilt)
            what = f"with {value} at [1, {j}] of view {i}, "
            if math.isnan(value):
                found, count = int(out[1].isnan().sum()), int(depends.sum())  # A sort moves NaN to other entries.
                expect(found >= count, f"{what}the {count} outputs that depend on it should be NaN", f"{found}")
            else:
                large = [view.clamp(-1e300, 1e300) for view in spoilt]
                huge = subject.forward(op, large)[1].abs()
                hidden = (huge > 1e290) & huge.isfinite() & out[1].isfinite()
                expect_nowhere(hidden, f"{what}the outputs that are as large as the entry should be infinite")
                _as_in_float64(subject, op, spoilt, out, depends, what)
            if subject.promises(op).batch_independent:
                expect(out[[0, 2]].isfinite().all(), f"{what}the other rows should stay finite", "NaN or Inf")


def _no_nan_for_zeros(subject: Subject, op: Fusion, dtype: torch.dtype) -> None:
    """Expect rows of zeros, in all views and in each, to give numbers."""
    x = subject.views(len(subject.dims) + 2, dtype=dtype)
    for i, view in enumerate(x):
        view[[0, i + 1]] = 0
        view.requires_grad_()
    out = subject.forward(op, x)
    expect(not out.isnan().any(), f"a row of zeros should give no NaN in {dtype}", "NaN")
    for i, gradient in enumerate(gradients(out, x)):
        expect(
            not gradient.isnan().any(),
            f"a row of zeros should give no NaN in the gradient of view {i} in {dtype}",
            "NaN",
        )


def _depends(out: Tensor, view: Tensor, j: int) -> Tensor:
    """Return which outputs of row 1 have a derivative by entry [1, j] of the view."""
    if not out.requires_grad:
        return torch.zeros(out.shape[-1], dtype=torch.bool)
    derivatives = [torch.autograd.grad(one, view, retain_graph=True, materialize_grads=True)[0] for one in out[1]]
    return torch.stack([derivative[1, j] for derivative in derivatives]) != 0


def _as_in_float64(subject: Subject, op: Fusion, x: list[Tensor], out: Tensor, depends: Tensor, what: str) -> None:
    reference = getattr(op, "reference", None)
    wanted = (out if reference is None else _call(reference, x))[1].isfinite()
    single = subject.forward(copy.deepcopy(op).float(), [view.float() for view in x])
    should = f"{what}the outputs that depend on it should be finite exactly where the float64 reference is"
    for dtype, found in (("float64", out), ("float32", single)):
        expect_nowhere(depends & (found[1].isfinite() != wanted), f"{should}, in {dtype}")


@rule(tier=2)
def check_extreme_values(subject: Subject) -> None:
    """In float16 and bfloat16 values from denormal to large stay finite where those of float64 are in range.

    Scale before squaring or summing, and divide by nothing that may underflow to zero.
    """
    for dtype in (torch.float16, torch.bfloat16):
        any_attempt(partial(_stays_finite, subject, dtype))


@torch.no_grad()
def _stays_finite(subject: Subject, dtype: torch.dtype) -> None:
    wide, info = subject.deterministic_operator(), torch.finfo(dtype)
    op = copy.deepcopy(wide).to(dtype)
    # Functions of torch square in float32, which ends at the square of 2^64.
    greatest = min(info.max, 2.0**63) / (8 * max(len(subject.dims), sum(subject.dims)))
    for exponent in torch.linspace(math.log2(info.smallest_normal / 4), math.log2(greatest), 12).tolist():
        x = [(torch.rand_like(view) * 0.5 + 0.5) * view.sign() * 2**exponent for view in subject.views(4)]
        rounded = [view.to(dtype) for view in x]
        # Rounded values may cancel exactly although every term is out of range; unrounded values do not.
        exact = [subject.forward(wide, [view.double() for view in views]) for views in (x, rounded)]
        # Where one entry is out of range, others are in range only because large terms cancel, or by an activation.
        if max(float(out.abs().max()) for out in exact) < info.max / 8:
            wrong = ~subject.forward(op, rounded).isfinite()
            where = f"values around {2**exponent:.3g} in {dtype}"
            expect_nowhere(wrong, f"{where} should give a finite output, as the float64 result is in range")


@rule(tier=2)
def check_autocast(subject: Subject) -> None:
    """Under autocast to bfloat16 and float16 the output is finite and close to that of float32, and backward works.

    Mix no dtypes by hand; cast to the dtype of the views where a function wants one dtype.
    """
    op = subject.operator(dtype=torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        any_attempt(partial(_as_in_float32, subject, op, dtype))


def _as_in_float32(subject: Subject, op: Fusion, dtype: torch.dtype) -> None:
    x = subject.views(8, dtype=torch.float32, requires_grad=True)
    wanted = subject.forward(op, x).detach()
    with torch.autocast("cpu", dtype=dtype):
        out = subject.forward(op, x)
    where = f"under autocast to {dtype}"
    expect(out.isfinite().all(), f"the output {where} should be finite", "NaN or Inf")
    if not subject.promises(op).stochastic:
        _within(f"the output {where}", out, wanted, TOLERANCE[dtype][0], smallest=1e-6)
    loss = (out.float() / wanted.abs().max().clamp_min(1)).square().mean()
    for i, gradient in enumerate(gradients(loss, [*x, *trained(op)])[: len(x)]):
        expect(gradient.isfinite().all(), f"the gradient of view {i} {where} should be finite", "NaN or Inf")


def _within(what: str, found: Tensor, wanted: Tensor, relative: float, smallest: float) -> None:
    """Expect the norm of the difference to be small beside that of ``wanted``, or beside ``smallest``."""
    gap = float((found.detach().double() - wanted.detach()).norm() / wanted.detach().norm().clamp_min(smallest))
    expect(gap <= relative, f"{what} should be within {relative:g} of the expected one", f"{gap:.3g}")
