"""What checks of several families share: comparisons of operators, their tensors and their gradients."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fusionkit import registry
from fusionkit.contract.rules import Violation, equal, expect, no_error, outcome, skip
from fusionkit.contract.subject import FabricationSubject, Subject
from fusionkit.core.construction import Unwritable
from fusionkit.errors import RegistryError
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion

T = TypeVar("T")


def works(what: str, call: Callable[[], T]) -> T:
    """Return the result of ``call``; a violation if it raises."""
    with no_error(f"{what} should work"):
        return call()


def expect_value(what: str, found: object, wanted: object) -> None:
    """Expect ``found == wanted``."""
    expect(found == wanted, f"{what} should be {wanted!r}", repr(found))


def expect_nowhere(wrong: Tensor, should: str) -> None:
    """Expect no entry of a boolean tensor to be set."""
    if wrong.any():
        first = wrong.nonzero()[0].tolist()
        raise Violation(should, f"a violation in {int(wrong.sum())} of {wrong.numel()} entries, the first at {first}")


def skip_if(holds: object, reason: str) -> None:
    """Leave a check that does not apply."""
    if holds:
        skip(reason)


def expect_unchanged(should: str, before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Expect two states to agree, such as those from ``tracking.attributes`` or ``guard.world``."""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    expect(not changed, should, f"other values of {', '.join(changed)}")


def expect_resolves(subject: Subject, what: str, name: str) -> None:
    """Expect the registry to find the subject under a name."""
    try:
        found = registry.resolve(subject.kind, name).qualified
    except RegistryError as error:
        found = str(error)
    expect(found == subject.record.qualified, f"{what} should mean {subject.record.qualified}", found)


def entry(prefix: str, name: str) -> str:
    """Return the dotted name of an entry of the submodule ``prefix``."""
    return f"{prefix}.{name}" if prefix else name


def shapes_of(op: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """Return the names and shapes of all parameters and buffers, also of those that are None."""
    return {
        entry(prefix, name): None if tensor is None else tuple(tensor.shape)
        for prefix, module in op.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
    }


def tensors_of(op: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers with their names."""
    return {**dict(op.named_parameters()), **dict(op.named_buffers())}


def copy_buffers(source: nn.Module, target: nn.Module) -> None:
    """Copy the buffers of ``source`` into those of ``target`` that have the same name and shape."""
    buffers = dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        if name in buffers and buffers[name].shape == buffer.shape:
            buffer.copy_(buffers[name])


def agrees(
    subject: Subject,
    what: str,
    found: Tensor,
    op: Fusion,
    x: Sequence[Tensor],
    *,
    exact: bool = False,
    **arguments: Any,
) -> None:
    """Expect ``found`` to be the output of the operator for these views and arguments, unless it is stochastic."""
    if not subject.promises(op).stochastic:
        equal(what, found, subject.forward(op, x, **arguments), exact=exact)


def same_output(subject: Subject, what: str, found: Fusion, wanted: Fusion, *, exact: bool = False) -> None:
    """Expect two operators to compute the same, unless they are stochastic."""
    x = subject.views(3)
    agrees(subject, what, subject.forward(found, x), wanted, x, exact=exact)


def trained(op: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require a gradient."""
    return [parameter for parameter in op.parameters() if parameter.requires_grad]


def gradients(out: Tensor, inputs: Sequence[Tensor], cotangent: Tensor | None = None) -> list[Tensor]:
    """Return the gradients of ``out``, or of its sum without a cotangent; zeros for inputs that it does not use."""
    if not out.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    cotangent = torch.ones_like(out) if cotangent is None else cotangent
    return list(torch.autograd.grad(out, inputs, cotangent, allow_unused=True, materialize_grads=True))


#: Parameters from which an operator is too large to be tried at another size.
LARGE = 10**5


def resized(subject: Subject, dims: Sequence[int]) -> Subject | None:
    """Return the subject with views of other widths; None if it refuses them, is too large, or cannot be built anew."""
    if any(isinstance(value, Unwritable) for value in subject.case.options.values()):
        return None
    case = replace(subject.case, options={**subject.case.options, "dims": list(dims)}, origin="generated")
    other = type(subject)(replace(subject.source, instance=None), case, subject.seed)  # An instance has one size.
    bare, error = outcome(partial(other.construct, device="meta"))
    if isinstance(error, ValueError) or (bare is not None and bare.calculate_l() > LARGE):
        return None
    return other


#: Widths and numbers of rows that no example has.
WIDTHS = (1, 2, 17, 65, 130)
ROWS = (5, 64, 300, 3000)


def at_drawn_sizes(subject: Subject) -> Iterator[tuple[Subject, int, str]]:
    """Yield the subject, a number of rows and both in words, at six sizes drawn from the seed.

    Every second one has equal widths.  It yields nothing but for the first case of a fusion.
    """
    draw = random.Random(subject.seed)
    for i in range(6 if subject.kind == "fusion" and str(subject.case) == str(subject.cases()[0]) else 0):
        k = draw.randint(1, 4)
        dims = draw.choices(WIDTHS, k=k) if i % 2 else [WIDTHS[2 + i // 2]] * k
        rows = draw.choice(ROWS)
        if (other := resized(subject, dims)) is not None:
            yield other, rows, f"{rows} rows of dims {dims}"


#: (n, dims) at which a fabrication is tried beyond its cases, n*D above 10^4: of many factors, as options want; primes.
LARGE_SIZES = ((36, (64, 48, 80, 32, 72, 56, 64, 16)), (37, (64, 48, 80, 32, 71, 57, 57)))


def enlarged(subject: FabricationSubject) -> Iterator[FabricationSubject]:
    """Yield the fabrication of an example at those of ``LARGE_SIZES`` that it does not refuse."""
    for n, dims in LARGE_SIZES if subject.case.origin == "example" else ():
        other = subject.at(replace(subject.case, n=n, dims=dims, origin="generated"))
        if not isinstance(outcome(other.check_size)[1], ValueError):
            yield other


def _idle_views(op: Fusion, *, small: bool) -> set[int]:
    """Return the views of which a fabrication with frozen positions, or a sparse one of small size, keeps no entry."""
    idle: set[int] = set()
    for _, fabrication, n, widths in Subject.prepared(op):
        if next(fabrication.buffers(), None) is not None or (small and fabrication.traits.may_ignore_views):
            D = sum(widths)
            columns = fabrication.materialize(random_w(fabrication, n, D), n, D).split(widths, dim=1)
            idle |= {i for i, part in enumerate(columns) if not part.any()}
    return idle


def expect_influence(subject: Subject, op: Fusion, x: Sequence[Tensor], what: str) -> None:
    """Expect every view but the idle ones to change the output, by values around 1, 10 or 0.01."""
    base, idle = subject.forward(op, x), _idle_views(op, small=subject.case.origin == "generated")
    for i, view in enumerate(x):
        others = (replaced(x, i, scale * torch.randn_like(view)) for scale in (1.0, 10.0, 0.01))
        moved = i in idle or any(not torch.equal(subject.forward(op, other), base) for other in others)
        expect(moved, f"view {i}{what} should influence the output", "an output that ignores it")


def shares_memory(out: Tensor, x: Sequence[Tensor]) -> bool:
    """Whether the output lies in the memory of a view."""
    return any(view.untyped_storage().data_ptr() == out.untyped_storage().data_ptr() for view in x)


def random_w(fabrication: Fabrication, n: int, D: int) -> Tensor:
    """Return random parameters (l,) of a fabrication."""
    return torch.randn(fabrication.calculate_l(n, D), dtype=torch.float64)


def replaced(x: Sequence[Any], i: int, value: Any) -> list[Any]:
    """Return the views with another one at position ``i``."""
    return [*x[:i], value, *x[i + 1 :]]
