"""The operator's own parameters, and an external `w` in their place."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from fusionkit.contract.checks._common import (
    agrees,
    copy_buffers,
    enlarged,
    entry,
    expect_nowhere,
    gradients,
    random_w,
    shapes_of,
    skip_if,
)
from fusionkit.contract.rules import equal, expect, has_shape, refuses, rule
from fusionkit.contract.subject import FabricationSubject, Subject
from fusionkit.contract.trait_checks import verify
from fusionkit.fusion import Fusion

#: Scales of the views: large views activate a unit that its bias keeps inactive.
SCALES = (1.0,) * 8 + (4.0,) * 24
#: Draws of the parameters before an element without a gradient counts as dead: a right relu unit may be inactive.
DRAWS = 5


@rule(basic=True)
def check_parameters_stable(subject: Subject) -> None:
    """A call, its backward and `reset_parameters` add or replace no parameter; a call keeps gradients and mode.

    Create everything in the constructor, nothing lazily at the first call; fill parameters in place, and leave `grad`
    and `training` to the program.
    """
    op = subject.build(dtype=torch.float64)
    before = shapes_of(op)
    for training in (True, True, False):
        op.train(training)
        gradients = {name: None if p.grad is None else p.grad.clone() for name, p in op.named_parameters()}
        out = subject.forward(op, subject.views(3, requires_grad=True))
        modes = [name or "the operator" for name, module in op.named_modules() if module.training is not training]
        expect(not modes, f"a call should leave training={training}", f"another mode of {', '.join(modes)}")
        for name, parameter in op.named_parameters():
            old, new = gradients.get(name), parameter.grad
            same = new is None if old is None else new is not None and torch.equal(old, new)
            expect(same, f"a call should leave the gradient of {name} alone", "another one")
        if out.requires_grad:
            out.sum().backward()
        after = shapes_of(op)
        expect(after == before, f"parameters and buffers should stay {before} during a call", str(after))
    own = dict(subject.own(op))
    op.reset_parameters(torch.Generator().manual_seed(0))
    replaced = [name for name, parameter in subject.own(op) if own.get(name) is not parameter]
    expect(not replaced, "reset_parameters should fill the parameters in place", f"other objects for {replaced}")


@rule()
def check_all_parameters_get_grad(subject: Subject) -> None:
    """Every element of the own parameters, except `padding`, gets a gradient, and an optimizer step changes it.

    Remove what the output does not depend on, or declare it: `requires_grad=False`, or the fabrication's `padding`.
    """
    op = subject.operator()
    own = {name: parameter for name, parameter in subject.own(op) if parameter.requires_grad}
    skip_if(not own, "the operator has no parameters that are trained")
    amounts = {name: torch.zeros_like(parameter) for name, parameter in own.items()}
    for _ in range(DRAWS):
        for scale in SCALES:
            out = subject.forward(op, [scale * view for view in subject.views(16)])
            expect(out.requires_grad, "the output should depend on the parameters", "an output without a graph")
            found = gradients(out, list(own.values()), torch.randn_like(out))
            for amount, gradient in zip(amounts.values(), found, strict=True):
                amount += gradient.abs()
            if scale > 1 and all(amount.all() for amount in amounts.values()):
                break
        if all_alive := all(amount.all() for amount in amounts.values()):
            break
        subject.randomize(op)
    before = {name: parameter.detach().clone() for name, parameter in own.items()}
    skip_if(_is_alone(subject) and not all_alive, "with a single view a gate has nothing to weigh")
    skip_if(not all_alive and _leaves_rows_empty(subject, op), "a row of a fabricated W is 0, and a gate for it idle")
    for large in enlarged(subject) if isinstance(subject, FabricationSubject) else ():
        _padding_at(large)
    padding = padding_of(op)
    for name, amount in amounts.items():
        _all_alive(name, amount, padding.get(name), "get a gradient that is not zero")
    with torch.no_grad():
        for name, parameter in own.items():
            # The first step of Adam; torch.optim itself takes seconds to import its compiler.
            parameter.sub_(1e-2 * amounts[name] / (amounts[name] + 1e-8))
    for name, parameter in own.items():
        _all_alive(name, (parameter.detach() - before[name]).abs(), padding.get(name), "change in an optimizer step")


def _is_alone(subject: Subject) -> bool:
    """Whether the case is generated, with one view."""
    return subject.kind == "fusion" and subject.case.origin == "generated" and len(subject.dims) == 1


def _leaves_rows_empty(subject: Subject, op: Fusion) -> bool:
    """Whether the case has another fabrication than the examples, and one of its W has a row of zeros."""
    return subject.case.origin == "crossed" and any(
        not fabrication.materialize(random_w(fabrication, n, sum(widths)), n, sum(widths)).any(-1).all()
        for _, fabrication, n, widths in Subject.prepared(op)
    )


def _all_alive(name: str, amount: Tensor, padding: Tensor | None, should: str) -> None:
    dead = (amount == 0) | amount.isnan()
    if padding is not None:
        alive = int((~dead & padding).sum())
        expect(not alive, f"entries of {name} in padding should not influence the output", f"{alive} that do")
        dead &= ~padding
    expect_nowhere(dead, f"every element of {name} should {should}")


def _padding_at(subject: FabricationSubject) -> None:
    """Expect exactly the entries in ``padding`` to have no influence on W."""
    (n, D), fabrication = subject.size, subject.made()
    fabrication.prepare(n, subject.dims, dtype=torch.float64)
    amount = torch.zeros(fabrication.calculate_l(n, D), dtype=torch.float64)
    for _ in range(8):  # A unit may be inactive by chance.
        w = random_w(fabrication, n, D).requires_grad_()
        W = fabrication.materialize(w, n, D)
        amount += gradients(W, [w], torch.randn_like(W))[0].abs()
    padding = fabrication.padding(n, D)
    for name, part in fabrication.split(amount, n, D).items():
        _all_alive(f"{name} for n = {n}, D = {D}", part, padding.get(name), "influence W")


def padding_of(op: Fusion) -> dict[str, Tensor]:
    """Return own parameter -> its entries that cannot influence W, as the operator's fabrications say."""
    return {
        # The blocks are parameters of the module that holds the fabrication.
        entry(path.rpartition(".")[0], block): entries
        for path, fabrication, n, widths in Subject.prepared(op)
        for block, entries in fabrication.padding(n, sum(widths)).items()
    }


@rule()
def check_external_w(subject: Subject) -> None:
    """A `w` (l,) or (1, l) replaces the own parameters for one call; one that does not fit raises a `FusionError`.

    Reach the parameters as attributes (`self.weight`), never through a closure or a list; leave `forward` to the
    base class.
    """
    op, other = subject.operator(), subject.operator()
    x = subject.views(3)
    l = op.calculate_l()
    own, w = op.flat_w().detach(), other.flat_w().detach()
    has_shape("flat_w()", w, (l,))
    # The buffers may differ by chance; only the parameters should.
    copy_buffers(op, other)
    _calls_once(subject, op, x, "when w is given", w=w)
    _calls_once(subject, op, x, "without w")
    for given in (w, w[None]):
        agrees(subject, f"the output for w of shape {tuple(given.shape)}", subject.forward(op, x, w=given), other, x)
    expect(torch.equal(op.flat_w(), own), "the own parameters should stay as they are when w is given", "other values")
    _refuse(subject, op, x, w)
    if not (subject.promises(op).train_eval_differ or op.traits.stochastic):
        agrees(subject, "the output for w in training mode", subject.forward(op.train(), x, w=w), other, x)
        found = _gradient(subject, op, x, w)
        equal("the gradient of w in training mode", found, _gradient(subject, op.eval(), x, w))
    if not l and not subject.offers("require_parameters"):
        return
    bare = subject.build(dtype=torch.float64, require_parameters=False).eval()
    copy_buffers(op, bare)
    agrees(subject, "the output with require_parameters=False", subject.forward(bare, x, w=w), other, x)
    if l:
        refuses(partial(bare, x), "no w, with require_parameters=False,", names=[l])
        if not _is_alone(subject):
            # Many rows: where a step is bounded, a row may depend on the sign of what the parameters give alone.
            gradient = _gradient(subject, bare, subject.views(64), w)
            expect(gradient.any(), "a given w should get a gradient", repr(gradient)[:80])


def _calls_once(subject: Subject, op: Fusion, x: list[Tensor], when: str, **arguments: Tensor) -> None:
    calls: list[Any] = []
    with op.register_forward_hook(lambda *arguments: calls.append(arguments)):
        subject.forward(op, x, **arguments)
    expect(len(calls) == 1, f"a forward hook should fire once {when}", f"{len(calls)} calls")


def _refuse(subject: Subject, op: Fusion, x: list[Tensor], w: Tensor) -> None:
    l = w.numel()
    wrong: list[tuple[Any, str, object]] = [
        (torch.cat([w, w.new_zeros(1)]), f"w of length {l + 1}", l),
        (w.tolist(), "a list as w", "list"),
    ]
    if l:
        wrong += [
            (w[:-1], f"w of length {l - 1}", l),
            (w.view(-1, 1).expand(-1, 2), f"w of shape ({l}, 2)", l),
            (w.float(), "w of dtype float32 for views of float64", "float32"),
            (w.to("meta"), "w on the meta device for views on the cpu", "meta"),
        ]
    for given, what, name in wrong:
        refuses(partial(op, x, w=given), what, names=[name])


def _gradient(subject: Subject, op: Fusion, x: list[Tensor], w: Tensor) -> Tensor:
    given = w.clone().requires_grad_()
    return gradients(subject.forward(op, x, w=given).square(), [given])[0]


@rule(scope="none")
def check_seeding(subject: Subject) -> None:
    """The same generator gives the same initial parameters; another gives others, unless `constant_init` is declared.

    Pass the `generator` of `reset_parameters` to every function that draws.
    """
    skip_if(not subject.build().calculate_l(), "the operator has no parameters")
    verify(subject, "constant_init", _ignores_generator, "another generator should give other initial parameters")


def _ignores_generator(subject: Subject) -> bool | None:
    op = subject.build(dtype=torch.float64)
    if not subject.own(op):
        return None
    drawn, built = [], []
    for seed in (1, 1, 2):
        # What is drawn from the global generator instead differs between the two with one seed.
        subject.randomize(op)
        random.random(), numpy.random.rand()
        op.reset_parameters(torch.Generator().manual_seed(seed))
        drawn.append(op.flat_w().detach().clone())
    same = torch.equal(*drawn[:2])
    expect(same, "reset_parameters with the same generator should give the same parameters", "other parameters")
    with torch.random.fork_rng():
        for seed in (5, 5, 6):
            torch.manual_seed(seed)
            built.append(subject.build(fresh=True, dtype=torch.float64).flat_w().detach())
    same, ignored = torch.equal(*built[:2]), torch.equal(*drawn[1:])
    expect(same, "building twice under the same torch.manual_seed should give the same parameters", "other parameters")
    other = ignored or not torch.equal(*built[1:])
    expect(other, "building under another torch.manual_seed should give other parameters", "the same")
    return ignored


@rule(basic=True)
def check_instances_independent(subject: Subject) -> None:
    """Two instances share no parameter, no buffer and no mutable attribute.

    Create lists, dicts and tensors in the constructor, never as class attributes or default arguments.
    """
    op, other = subject.operator(fresh=True), subject.operator(fresh=True)
    mine, others = _mutable(op), _mutable(other)
    shared = sorted(mine[identity] for identity in mine.keys() & others.keys())
    expect(not shared, "two instances should share nothing that can change", f"the shared {shared}")
    if subject.promises(op).stochastic:
        return
    x = subject.views(3)
    before = subject.forward(op, x).clone()
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.zero_()
    what = "the output after the parameters of another instance were changed"
    equal(what, subject.forward(op, x), before, exact=True)


def _mutable(op: nn.Module) -> dict[int, str]:
    """Return identity -> name of everything that can change: storages, containers, child modules."""
    found: dict[int, str] = {}
    for prefix, module in op.named_modules():
        cls = type(module)
        values = {entry(prefix, name): value for name, value in vars(module).items()}
        values |= {f"{cls.__name__}.{name}": value for name, value in vars(cls).items() if _is_state(cls, name, value)}
        for name, value in values.items():
            found.update(_parts(value, name))
    return found


def _parts(value: Any, name: str) -> Iterator[tuple[int, str]]:
    """Yield identity and name of a value and of what it contains."""
    if isinstance(value, Tensor):
        if value.numel():
            yield value.untyped_storage().data_ptr(), name
    elif isinstance(value, list | dict | set | nn.Module):
        yield id(value), name
    if isinstance(value, list | dict | set | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _parts(item, f"{name}[{key!r}]")


@rule(tier=2)
def check_init_statistics(subject: Subject) -> None:
    """At initialization the mean square of the output, over 20 seeds or more, is `init_gain` times that of the views.

    Initialize by the fan-in of the matrix that multiplies the views, which is not that of a flat vector.  An operator
    that makes its views smaller or larger by its formula, as a gate or a mean does, declares
    `Traits(init_gain=(low, high))`.
    """
    op = subject.build(dtype=torch.float64)
    l = op.calculate_l()
    skip_if(not l or not subject.own(op), "the operator has no parameters")
    promises = subject.promises(op)
    skip_if(promises.constant, "a constant matrix cannot be initialized")
    skip_if(subject.leaves_nothing(op), "at this generated size the output is constant")
    low, high = promises.init_gain
    expect(0 < low <= high < math.inf, "init_gain should be two finite numbers above 0, in order", f"{(low, high)}")
    x = subject.views(256)
    inputs = statistics.fmean(float(view.square().mean()) for view in x)
    squares = []
    # Few parameters scatter widely: the mean is taken over at least 600 draws in all.
    for seed in range(max(20, -(-600 // l))):
        op.reset_parameters(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            squares.append(float(subject.forward(op, x).square().mean()))
    ratio = statistics.fmean(squares) / inputs
    should = (
        f"the mean square of the output, over {len(squares)} initializations, should be {low:g} to {high:g} times that "
        "of the views, or init_gain should be declared"
    )
    expect(low <= ratio <= high, should, f"{ratio:.3g} times")


def _is_state(cls: type, name: str, value: object) -> bool:
    """Whether an attribute of a class can change; ``frozen_dtypes``, and the tables on torch's classes, do not."""
    table = name == "frozen_dtypes" or cls.__module__.startswith("torch.")
    return isinstance(value, Tensor if table else Tensor | list | dict | set) and not name.startswith("__")
