"""What fabrications promise beyond the operators that they are part of."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from fusionkit.contract.rules import equal, expect, has_shape, no_error, rule, skip
from fusionkit.contract.subject import FabricationSubject
from fusionkit.fabrication import Fabrication

#: Seeds over which the variance of W is averaged, and the entries above which one draw will do.
SEEDS = 200
ENTRIES_OF_ONE_DRAW = 4096


@rule(kinds=("fabrication",))
def check_project_equals_materialize(subject: FabricationSubject) -> None:
    """`project(x, w, n)` is `concat(x) @ materialize(w, n, D).T`, in values and in the gradients of views and w.

    Remove `_project` to see whether it is at fault, then look at padding, cropping and the order of blocks; where it
    fails for a single transposed view alone, use `reshape` in place of `view`.
    """
    n, D = subject.size
    for prepared in (False, True):
        fabrication = _fabrication(subject, prepared)
        w = torch.randn(fabrication.calculate_l(n, D), dtype=torch.float64, requires_grad=True)
        batches = [("w (l,)", subject.views(*lead, requires_grad=True)) for lead in ((4,), (2, 3), ())]
        if not prepared:
            # Joined with nothing, and maybe not padded, it is not copied on the way.
            batches.append(("a single transposed view", [torch.randn(D, 4, dtype=torch.float64).t().requires_grad_()]))
        for given, x in batches:
            with no_error(f"project and materialize should accept {given}"):
                W = fabrication.materialize(w, n, D)
                # project may build W where that is cheaper; the structured way has to agree as well.
                products = {
                    "project": fabrication.project(x, w, n),
                    "_project": fabrication._project(x, fabrication.split(w, n, D), n),
                }
            has_shape("W", W, (n, D))
            wanted = torch.cat(x, -1) @ W.T
            cotangent = torch.randn_like(wanted)
            gradients = _gradients(wanted, [*x, w], cotangent)
            names = [*(f"view {i}" for i in range(len(x))), "w"]
            for what, found in products.items():
                equal(f"{what}(x, w, n)", found, wanted)
                for name, one, other in zip(names, _gradients(found, [*x, w], cotangent), gradients, strict=True):
                    equal(f"the gradient of {name} by {what}", one, other)
        flat = fabrication.materialize(w.detach()[None], n, D)
        equal("materialize for w of shape (1, l)", flat, fabrication.materialize(w.detach(), n, D), exact=True)
        called = fabrication(n=n, D=D, w=w.detach(), device="cpu")
        equal("calling the fabrication", called, flat, exact=True)


def _gradients(out: Tensor, inputs: list[Tensor], cotangent: Tensor) -> list[Tensor]:
    if not out.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    found = torch.autograd.grad(out, inputs, cotangent, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True)]


def _fabrication(subject: FabricationSubject, prepared: bool) -> Fabrication:
    fabrication = subject.made()
    if prepared:
        with no_error("prepare(n, dims) should create the frozen buffers"):
            fabrication.prepare(subject.size[0], subject.dims, dtype=torch.float64)
    return fabrication


@rule(kinds=("fabrication",))
def check_structure(subject: FabricationSubject) -> None:
    """W is what `reference(w, n, D)` gives, where the class has one: the definition, written as loops.

    Correct the one of the two that does not follow the formula of the docstring; `self.split(w, n, D)` cuts w into
    blocks, and `self.frozen(n, D, w)` returns the frozen parts.
    """
    n, D = subject.size
    fabrication = _fabrication(subject, prepared=True)
    reference = getattr(fabrication, "reference", None)
    if reference is None:
        skip("the class defines no reference(w, n, D)")
    w = torch.randn(fabrication.calculate_l(n, D), dtype=torch.float64)
    with no_error("reference(w, n, D) should work"):
        wanted = reference(w, n, D)
    equal("W", fabrication.materialize(w, n, D), wanted)


@rule(kinds=("fabrication",))
def check_seeded_buffers(subject: FabricationSubject) -> None:
    """Frozen parts follow from the seed alone, travel in the state_dict, and a loaded one wins over the seed.

    Draw them in `_draw_frozen` from `torch.Generator().manual_seed(self.seed)`; let `prepare` register them.
    """
    n, D = subject.size
    first = _fabrication(subject, prepared=True)
    names = list(first.frozen_shapes(n, D))
    w = torch.randn(first.calculate_l(n, D), dtype=torch.float64)
    W = first.materialize(w, n, D)
    torch.manual_seed(12345)
    second = _fabrication(subject, prepared=True)
    equal("W of a second fabrication with the same seed", second.materialize(w, n, D), W, exact=True)
    if not names:
        skip("the fabrication has no frozen parts; W follows from w alone")
    bare = subject.made()
    equal("W of an unprepared fabrication", bare.materialize(w, n, D), W)
    expect(not bare.state_dict(), "an unprepared fabrication should keep nothing", list(bare.state_dict()))
    missing = [name for name in names if name not in first.state_dict()]
    expect(not missing, f"the frozen parts {names} should be in the state_dict", f"no {missing}")
    _loaded_wins(subject, first, w, W)
    if "seed" in first._arguments or _takes_seed(subject):
        seed = int(getattr(first, "seed", 0)) + 1
        other = subject.fabrication(seed=seed)
        other.prepare(n, subject.dims, dtype=torch.float64)
        expect(
            not torch.equal(other.materialize(w, n, D), W) or _is_trivial(first, n, D),
            f"seed={seed} should give another W",
            "the same",
        )
        other.load_state_dict(first.state_dict())
        equal("W after loading the state_dict of another seed", other.materialize(w, n, D), W, exact=True)


def _takes_seed(subject: FabricationSubject) -> bool:
    return subject.accepts("seed")


def _is_trivial(fabrication: Fabrication, n: int, D: int) -> bool:
    """Whether the size leaves the seed nothing to decide: a few integer positions may be all there are."""
    values = fabrication.frozen(n, D, torch.zeros((), dtype=torch.float64)).values()
    return not any(value.is_floating_point() and value.numel() for value in values) and n * D < 32


def _loaded_wins(subject: FabricationSubject, first: Fabrication, w: Tensor, W: Tensor) -> None:
    n, D = subject.size
    changed = copy.deepcopy(first)
    for buffer in changed.buffers():
        if buffer.is_floating_point():
            buffer.mul_(2)
    loaded = _fabrication(subject, prepared=True)
    loaded.load_state_dict(changed.state_dict())
    equal("W after loading other frozen parts", loaded.materialize(w, n, D), changed.materialize(w, n, D), exact=True)
    loaded.reset_frozen()
    equal("W after reset_frozen", loaded.materialize(w, n, D), W, exact=True)


@rule(tier=2, kinds=("fabrication",))
def check_init_variance(subject: FabricationSubject) -> None:
    """After `init_` the mean of W_ij^2 over 200 seeds is 1/D within 20 % (one seed from 4096 entries on).

    State the norm of W in `_squared_norm`, and its degree in w; or scale the draw by the fan-in of W.
    """
    n, D = subject.size
    fabrication = _fabrication(subject, prepared=True)
    l = fabrication.calculate_l(n, D)
    if not l:
        skip("the fabrication has no parameters")
    squares = []
    for seed in range(1 if n * D >= ENTRIES_OF_ONE_DRAW else SEEDS):
        w = torch.full((l,), float("nan"), dtype=torch.float64)
        fabrication.init_(w, n, D, torch.Generator().manual_seed(seed))
        squares.append(float(fabrication.materialize(w, n, D).square().mean()))
    mean = sum(squares) / len(squares)
    expect(
        0.8 <= mean * D <= 1.2,
        f"the mean of W_ij^2 over {len(squares)} seeds should be within 20 % of 1/D = {1 / D:.4g}",
        f"{mean:.4g}",
    )
