"""The checks that apply to fabrications alone."""

from __future__ import annotations

import copy
import statistics
from typing import Any

import torch
from torch import Tensor

from fusionkit.contract.checks._common import enlarged, gradients, random_w, skip_if, works
from fusionkit.contract.rules import equal, expect, has_shape, no_error, rule
from fusionkit.contract.subject import FabricationSubject
from fusionkit.fabrication import Fabrication

#: Seeds over which the variance of W is averaged, fewer of a W of many entries.
SEEDS, FEW_SEEDS = 200, 20
MANY_ENTRIES = 4096


@rule(kinds=("fabrication",))
def check_project_equals_materialize(subject: FabricationSubject) -> None:
    """`project(x, w, n)` is `concat(x) @ materialize(w, n, D).T`, in values and in the gradients of views and w.

    Remove `_project` to see whether it is at fault, then look at padding, cropping and the order of blocks; where it
    fails for a single transposed view alone, use `reshape` in place of `view`.
    """
    n, D = subject.size
    for large in enlarged(subject):
        _at_a_large_size(large)
    for prepared in (False, True):
        fabrication = _prepared(subject) if prepared else subject.made()
        w = random_w(fabrication, n, D).requires_grad_()
        batches = [("w (l,)", subject.views(*lead, requires_grad=True)) for lead in ((4,), (2, 3), ())]
        if not prepared:
            # A single view need not be concatenated or padded, so `_project` may see its strides.
            batches.append(("a single transposed view", [torch.randn(D, 4, dtype=torch.float64).t().requires_grad_()]))
        for given, x in batches:
            with no_error(f"project and materialize should accept {given}"):
                W = fabrication.materialize(w, n, D)
                products = _products(fabrication, x, w, n)
            has_shape("W", W, (n, D))
            _same_product(products, torch.cat(x, -1) @ W.T, x, w)
        w = w.detach()
        for dtype in (torch.float16, torch.bfloat16):
            _half_matrix(fabrication, w, n, D, dtype)
        flat = fabrication.materialize(w[None], n, D)
        equal("materialize for w of shape (1, l)", flat, fabrication.materialize(w, n, D), exact=True)
        equal("calling the fabrication", fabrication(n=n, D=D, w=w, device="cpu"), flat, exact=True)


def _half_matrix(fabrication: Fabrication, w: Tensor, n: int, D: int, dtype: torch.dtype) -> None:
    """Expect W in half precision to be near that of the same numbers in float64."""
    cast = copy.deepcopy(fabrication).to(dtype)
    wide, rounded = copy.deepcopy(cast).double(), w.to(dtype)
    wanted, found = wide.materialize(rounded.double(), n, D), cast.materialize(rounded, n, D)
    once = float((wide.materialize(w, n, D) - wanted).norm())
    allowed = 16 * once + torch.finfo(dtype).eps * float(wanted.norm())
    gap = float((found.double() - wanted).norm())
    expect(
        gap <= allowed, f"W in {dtype} should be within {allowed:.3g} of that in float64", f"a difference of {gap:.3g}"
    )


def _products(fabrication: Fabrication, x: list[Tensor], w: Tensor, n: int) -> dict[str, Tensor]:
    # project may build W where that is cheaper; the structured way has to agree as well.
    own = fabrication._project(x, fabrication.split(w, n, sum(view.shape[-1] for view in x)), n)
    return {"project": fabrication.project(x, w, n), "_project": own}


def _at_a_large_size(subject: FabricationSubject) -> None:
    """Expect the product to agree for many views, more than 400 columns and more than 10^4 entries."""
    (n, D), fabrication = subject.size, _prepared(subject)
    w = random_w(fabrication, n, D).requires_grad_()
    x = subject.views(4, requires_grad=True)
    W = fabrication.materialize(w, n, D)
    _same_product(_products(fabrication, x, w, n), torch.cat(x, -1) @ W.T, x, w)


@rule(kinds=("fabrication",))
def check_structure(subject: FabricationSubject) -> None:
    """W equals `reference(w, n, D)`, the definition written as loops, if the class has one.

    Correct whichever of the two does not follow the formula of the docstring; `self.split(w, n, D)` cuts w into
    blocks, and `self.frozen(n, D, w)` returns the frozen parts.
    """
    n, D = subject.size
    fabrication = _prepared(subject)
    reference: Any = getattr(fabrication, "reference", None)
    skip_if(reference is None, "the class defines no reference(w, n, D)")
    w = random_w(fabrication, n, D)
    equal("W", fabrication.materialize(w, n, D), works("reference(w, n, D)", lambda: reference(w, n, D)))


@rule(kinds=("fabrication",))
def check_seeded_buffers(subject: FabricationSubject) -> None:
    """Frozen parts depend on the seed only and are in the state_dict; loaded ones replace those of the seed.

    Draw them in `_draw_frozen` from `torch.Generator().manual_seed(self.seed)`; let `prepare` register them.
    """
    for each in (*enlarged(subject), subject):
        _frozen_by_seed(each)


def _frozen_by_seed(subject: FabricationSubject) -> None:
    n, D = subject.size
    first = _prepared(subject)
    names = list(first.frozen_shapes(n, D))
    w = random_w(first, n, D)
    W = first.materialize(w, n, D)
    torch.manual_seed(12345)
    second = _prepared(subject)
    equal("W of a second fabrication with the same seed", second.materialize(w, n, D), W, exact=True)
    skip_if(not names, "the fabrication has no frozen parts; W follows from w alone")
    bare = subject.made()
    equal("W of an unprepared fabrication", bare.materialize(w, n, D), W)
    expect(not bare.state_dict(), "an unprepared fabrication should keep nothing", list(bare.state_dict()))
    missing = [name for name in names if name not in first.state_dict()]
    expect(not missing, f"the frozen parts {names} should be in the state_dict", f"no {missing}")
    _loaded_parts_replace(subject, first, w, W)
    if "seed" in first._arguments or subject.accepts("seed"):
        seed = int(getattr(first, "seed", 0)) + 1
        other = _prepared(subject, seed=seed)
        differs = not torch.equal(other.materialize(w, n, D), W) or _is_trivial(first, n, D)
        expect(differs, f"seed={seed} should give another W", "the same")
        other.load_state_dict(first.state_dict())
        equal("W after loading the state_dict of another seed", other.materialize(w, n, D), W, exact=True)


def _is_trivial(fabrication: Fabrication, n: int, D: int) -> bool:
    """Whether the size leaves the seed nothing to decide: a few integer positions may be all there are."""
    values = fabrication.frozen(n, D, torch.zeros((), dtype=torch.float64)).values()
    return not any(value.is_floating_point() and value.numel() for value in values) and n * D < 32


def _loaded_parts_replace(subject: FabricationSubject, first: Fabrication, w: Tensor, W: Tensor) -> None:
    n, D = subject.size
    changed = copy.deepcopy(first)
    for buffer in changed.buffers():
        if buffer.is_floating_point():
            buffer.mul_(2)
    loaded = _prepared(subject)
    loaded.load_state_dict(changed.state_dict())
    equal("W after loading other frozen parts", loaded.materialize(w, n, D), changed.materialize(w, n, D), exact=True)
    loaded.reset_frozen()
    equal("W after reset_frozen", loaded.materialize(w, n, D), W, exact=True)


@rule(tier=2, kinds=("fabrication",))
def check_init_variance(subject: FabricationSubject) -> None:
    """After `init_` the mean of W_ij^2 over 200 seeds is 1/D within 20 % (20 seeds from 4096 entries on).

    State the norm of W in `_squared_norm`, and its degree in w; or scale the draw by the fan-in of W.
    """
    for each in (*enlarged(subject), subject):
        _drawn_by_variance(each)


def _drawn_by_variance(subject: FabricationSubject) -> None:
    n, D = subject.size
    fabrication = _prepared(subject)
    l = fabrication.calculate_l(n, D)
    skip_if(not l, "the fabrication has no parameters")
    squares = []
    for seed in range(FEW_SEEDS if n * D >= MANY_ENTRIES else SEEDS):
        w = torch.full((l,), float("nan"), dtype=torch.float64)
        fabrication.init_(w, n, D, torch.Generator().manual_seed(seed))
        squares.append(float(fabrication.materialize(w, n, D).square().mean()))
    mean = statistics.fmean(squares)
    should = f"the mean of W_ij^2 (n = {n}) over {len(squares)} seeds should be within 20 % of 1/D = {1 / D:.4g}"
    expect(0.8 <= mean * D <= 1.2, should, f"{mean:.4g}")


def _same_product(products: dict[str, Tensor], wanted: Tensor, x: list[Tensor], w: Tensor) -> None:
    """Expect products, and their gradients by the views and w, to be as ``wanted``."""
    cotangent = torch.randn_like(wanted)
    expected = gradients(wanted, [*x, w], cotangent)
    names = [*(f"view {i}" for i in range(len(x))), "w"]
    for what, found in products.items():
        equal(f"{what}(x, w, n)", found, wanted)
        for name, one, other in zip(names, gradients(found, [*x, w], cotangent), expected, strict=True):
            equal(f"the gradient of {name} by {what}", one, other)


def _prepared(subject: FabricationSubject, **options: Any) -> Fabrication:
    fabrication = subject.fabrication(**options) if options else subject.made()
    with no_error("prepare(n, dims) should create the frozen buffers"):
        fabrication.prepare(subject.size[0], subject.dims, dtype=torch.float64)
    return fabrication
