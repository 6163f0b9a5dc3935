"""The operator's own parameters, from inside and from outside."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit.contract.rules import equal, expect, has_shape, refuses, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.contract.trait_checks import verify
from fusionkit.fusion import Fusion

#: Of the views: large ones reach a unit whose bias lets it sleep.
SCALES = (1.0,) * 8 + (4.0,) * 24
#: Containers on the class that are no state.
TABLES = ("frozen_dtypes", "call_super_init", "dump_patches")


@rule()
def check_parameters_stable(subject: Subject) -> None:
    """A call, its backward and `reset_parameters` add, remove and replace no parameter; gradients and mode stay.

    Create everything in the constructor, nothing lazily at the first call; fill parameters in place, and leave `grad`
    and `training` to the program.
    """
    op = subject.build(dtype=torch.float64)
    before = _inventory(op)
    for training in (True, True, False):
        op.train(training)
        gradients = {name: None if p.grad is None else p.grad.clone() for name, p in op.named_parameters()}
        out = subject.forward(op, subject.views(3, requires_grad=True))
        modes = [name or "the operator" for name, module in op.named_modules() if module.training is not training]
        expect(not modes, f"a call should leave training={training}", f"another mode of {', '.join(modes)}")
        for name, parameter in op.named_parameters():
            old, new = gradients[name], parameter.grad
            same = new is None if old is None else new is not None and torch.equal(old, new)
            expect(same, f"a call should leave the gradient of {name} alone", "another one")
        if out.requires_grad:
            out.sum().backward()
        after = _inventory(op)
        expect(after == before, f"parameters and buffers should stay {before} during a call", str(after))
    own = dict(subject.own(op))
    op.reset_parameters(torch.Generator().manual_seed(0))
    replaced = [name for name, parameter in subject.own(op) if own.get(name) is not parameter]
    expect(not replaced, "reset_parameters should fill the parameters in place", f"other objects for {replaced}")


def _inventory(op: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """Return the names and shapes of all parameters and buffers, None entries included."""
    return {
        f"{prefix}.{name}" if prefix else name: None if tensor is None else tuple(tensor.shape)
        for prefix, module in op.named_modules()
        for entries in (module._parameters, module._buffers)
        for name, tensor in entries.items()
    }


@rule()
def check_all_parameters_get_grad(subject: Subject) -> None:
    """Every element of the own parameters, but for `padding`, gets a gradient, and an optimizer step changes it.

    Remove what the output does not depend on, or declare it: `requires_grad=False`, or the fabrication's `padding`.
    """
    op = subject.operator()
    trained = [(name, parameter) for name, parameter in subject.own(op) if parameter.requires_grad]
    if not trained:
        skip("the operator has no parameters that are trained")
    padding = padding_of(op)
    before = {name: parameter.detach().clone() for name, parameter in trained}
    gradients = {name: torch.zeros_like(parameter) for name, parameter in trained}
    for scale in SCALES:
        out = subject.forward(op, [scale * view for view in subject.views(16)])
        expect(out.requires_grad, "the output should depend on the parameters", "an output without a graph")
        op.zero_grad()
        (out * torch.randn_like(out)).sum().backward()
        for name, parameter in trained:
            if parameter.grad is not None:
                gradients[name] += parameter.grad.abs()
            else:
                expect(_is_alone(subject), f"{name} should get a gradient", "None")
        if scale > 1 and all((gradient != 0).all() for gradient in gradients.values()):
            break
    if _is_alone(subject) and any((gradient == 0).any() for gradient in gradients.values()):
        skip("a single view leaves a gate nothing to weigh")
    for name, _ in trained:
        _all_alive(name, gradients[name], padding.get(name), "get a gradient that is not zero")
    with torch.no_grad():
        for name, parameter in trained:
            # The first step of Adam; torch.optim itself takes seconds to import its compiler.
            parameter.sub_(1e-2 * gradients[name] / (gradients[name] + 1e-8))
    for name, parameter in trained:
        _all_alive(name, (parameter.detach() - before[name]).abs(), padding.get(name), "change in an optimizer step")


def _is_alone(subject: Subject) -> bool:
    """Whether the case is generated, with one view."""
    return subject.kind == "fusion" and subject.case.origin == "generated" and len(subject.dims) == 1


def _all_alive(name: str, amount: Tensor, padding: Tensor | None, should: str) -> None:
    dead = (amount == 0) | amount.isnan()
    if padding is not None:
        alive = ~dead & padding
        expect(
            not alive.any(),
            f"entries of {name} in padding should not influence the output",
            f"{int(alive.sum())} that do",
        )
        dead &= ~padding
    where = dead.nonzero()[:1].tolist()
    expect(
        not dead.any(),
        f"every element of {name} should {should}",
        f"{int(dead.sum())} of {dead.numel()} that do not, the first at {where}",
    )


def padding_of(op: Fusion) -> dict[str, Tensor]:
    """Return own parameter -> its entries that cannot influence W, as the operator's fabrications say."""
    found: dict[str, Tensor] = {}
    for path, fabrication, n, widths in Subject.prepared(op):
        # The blocks are parameters of the module that holds the fabrication.
        owner = path.rpartition(".")[0]
        for block, entries in fabrication.padding(n, sum(widths)).items():
            found[f"{owner}.{block}" if owner else block] = entries
    return found


@rule()
def check_external_w(subject: Subject) -> None:
    """A `w` (l,) or (1, l) replaces the own parameters for one call; one that does not fit is a `FusionError`.

    Reach the parameters as attributes (`self.weight`), never through a closure or a list; leave `forward` to the
    base class.
    """
    op, other = subject.operator(), subject.operator()
    x = subject.views(3)
    l = op.calculate_l()
    own, w = op.flat_w().detach(), other.flat_w().detach()
    has_shape("flat_w()", w, (l,))
    # Buffers of the two may differ by chance, the parameters alone are to make the difference.
    _copy_buffers(op, other)
    wanted = subject.forward(other, x)
    for one in (w, None):
        _calls_once(subject, op, x, one)
    for given in (w, w[None]):
        what = f"the output for w of shape {tuple(given.shape)}"
        if not subject.promises(op).stochastic:
            equal(what, subject.forward(op, x, w=given), wanted)
    expect(
        torch.equal(op.flat_w().detach(), own),
        "the own parameters should stay as they are when w is given",
        "other values",
    )
    _refuse(subject, op, x, w)
    if not (subject.promises(op).train_eval_differ or op.traits.stochastic):
        equal("the output for w in training mode", subject.forward(op.train(), x, w=w), wanted)
        found = _gradient(subject, op, x, w)
        equal("the gradient of w in training mode", found, _gradient(subject, op.eval(), x, w))
    if not l and not subject.offers("require_parameters"):
        return
    bare = subject.build(dtype=torch.float64, require_parameters=False).eval()
    _copy_buffers(op, bare)
    if not subject.promises(op).stochastic:
        equal("the output with require_parameters=False", subject.forward(bare, x, w=w), wanted)
    if l:
        refuses(partial(bare, x), "no w, with require_parameters=False,", names=[l])
        if not _is_alone(subject):
            _differentiable(subject, bare, x, w)


def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    buffers = dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        if name in buffers and buffers[name].shape == buffer.shape:
            buffer.copy_(buffers[name])


def _calls_once(subject: Subject, op: Fusion, x: list[Tensor], w: Tensor | None) -> None:
    calls: list[Any] = []
    handle = op.register_forward_hook(lambda *arguments: calls.append(arguments))
    try:
        subject.forward(op, x, **({} if w is None else {"w": w}))
    finally:
        handle.remove()
    when = "without w" if w is None else "when w is given"
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
    out = subject.forward(op, x, w=given)
    gradient = torch.autograd.grad(out.square().sum(), given, allow_unused=True)[0] if out.requires_grad else None
    return torch.zeros_like(w) if gradient is None else gradient


def _differentiable(subject: Subject, op: Fusion, x: list[Tensor], w: Tensor) -> None:
    given = w.clone().requires_grad_()
    out = subject.forward(op, x, w=given)
    out.square().sum().backward() if out.requires_grad else None
    expect(given.grad is not None and bool(given.grad.any()), "a given w should get a gradient", repr(given.grad)[:80])


@rule(scope="none")
def check_seeding(subject: Subject) -> None:
    """The same generator gives the same initial parameters; another one others, unless `constant_init` is declared.

    Hand the `generator` of `reset_parameters` to every function that draws.
    """
    if not subject.build().calculate_l():
        skip("the operator has no parameters")
    verify(subject, "constant_init", _ignores_generator, "another generator should give other initial parameters")


def _ignores_generator(subject: Subject) -> bool | None:
    op = subject.build(dtype=torch.float64)
    if not subject.own(op):
        return None
    drawn = []
    for seed in (1, 1, 2):
        # What is drawn from the global generator instead differs between the two with one seed.
        subject.randomize(op)
        op.reset_parameters(torch.Generator().manual_seed(seed))
        drawn.append(op.flat_w().detach().clone())
    same = torch.equal(drawn[0], drawn[1])
    expect(same, "reset_parameters with the same generator should give the same parameters", "others")
    with torch.random.fork_rng():
        built = []
        for seed in (5, 5, 6):
            torch.manual_seed(seed)
            built.append(subject.build(fresh=True, dtype=torch.float64).flat_w().detach())
    same, ignored = torch.equal(*built[:2]), torch.equal(drawn[0], drawn[2])
    expect(same, "building twice under the same torch.manual_seed should give the same parameters", "others")
    other = ignored or not torch.equal(*built[1:])
    expect(other, "building under another torch.manual_seed should give other parameters", "the same")
    return ignored


@rule()
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
    equal(
        "the output after the parameters of another instance were changed", subject.forward(op, x), before, exact=True
    )


def _mutable(op: nn.Module) -> dict[int, str]:
    """Return identity -> name of everything that can change: storages, containers, child modules."""
    return {
        identity: path
        for prefix, module in op.named_modules()
        for name, value in (*_instance_state(prefix, module), *_class_state(type(module)))
        for identity, path in _parts(value, name)
    }


def _instance_state(prefix: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        yield f"{prefix}.{name}" if prefix else name, value


def _class_state(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield what can change on the class itself, but for torch's tables."""
    for name, value in vars(cls).items():
        if isinstance(value, Tensor | list | dict | set) and not name.startswith("__"):
            table = name in TABLES or cls.__module__.startswith("torch.")
            if isinstance(value, Tensor) or not table:
                yield f"{cls.__name__}.{name}", value


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
    """At initialization the variance of the output, over 20 seeds or more, is within a factor of 2 of the inputs'.

    Initialize by the fan-in of the matrix that multiplies the views, which is not that of a flat vector.
    """
    op = subject.build(dtype=torch.float64)
    l = op.calculate_l()
    if not l or not subject.own(op):
        skip("the operator has no parameters")
    if subject.promises(op).constant:
        skip("a constant matrix cannot be initialized")
    if subject.leaves_nothing(op):
        skip("at this generated size the output is constant")
    x = subject.views(256)
    inputs = sum(float(view.var(correction=0)) for view in x) / len(x)
    variances = []
    # Few parameters scatter widely: the mean is taken over at least 600 draws in all.
    for seed in range(max(20, -(-600 // l))):
        op.reset_parameters(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            variances.append(float(subject.forward(op, x).square().mean()))
    ratio = sum(variances) / len(variances) / inputs
    expect(
        0.5 <= ratio <= 2,
        f"the output variance at initialization, the mean of {len(variances)} seeds, should be 0.5 to 2 of the inputs'",
        f"{ratio:.3g}",
    )
