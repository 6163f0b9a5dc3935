"""The sizes of an operator: n, the width of the output, and l, the number of its parameters."""

from __future__ import annotations

import contextlib
import math
import tempfile
from functools import partial
from typing import Any

import torch

from fusionkit.contract.cases import importable_fabrications
from fusionkit.contract.checks._common import expect_unchanged, expect_value, shapes_of, skip_if, tensors_of, works
from fusionkit.contract.rules import Violation, describe, expect, has_shape, no_error, outcome, refuses, rule, skip
from fusionkit.contract.subject import FabricationSubject, Subject
from fusionkit.contract.tracking import LargestOnCpu, attributes
from fusionkit.errors import DimsError
from fusionkit.fusion import Fusion


@rule(basic=True)
def check_n_matches_output(subject: Subject) -> None:
    """The width of the output is `calculate_n()`.

    Let `calculate_n` return the width that `_fuse` produces for these dims.
    """
    op = subject.operator()
    shape = tuple(subject.forward(op, subject.views(2)).shape)
    n = works("calculate_n()", op.calculate_n)
    expect(shape and shape[-1] == n, f"the output should have width calculate_n() = {n!r}", str(shape))
    expect(op.n == n, f"the attribute n should be calculate_n() = {n!r}", op.n)


@rule(kinds=("fusion",))
def check_n_pure(subject: Subject) -> None:
    """`calculate_n` returns the same int at every call, before a forward and on the meta device too; it stores nothing.

    Compute it from `self.resolve_dims(dims)` with integer arithmetic, and set no attribute.
    """
    for device in ("cpu", "meta"):
        op = subject.build(device=device)
        before = attributes(op)
        n = works(f"calculate_n() on {device}", op.calculate_n)
        expect(type(n) is int and n > 0, f"calculate_n() on {device} should return an int of at least 1", repr(n))
        other = [width + 1 for width in subject.dims]
        with contextlib.suppress(ValueError):
            op.calculate_n(other)
            expect_unchanged("calculate_n should store nothing", before, attributes(op))
        expect_value(f"calculate_n() after a call with dims {other}", op.calculate_n(), n)
        expect_value("calculate_n(dims) for the operator's own dims", op.calculate_n(list(subject.dims)), n)
        expect_unchanged("calculate_n should store nothing", before, attributes(op))


@rule(kinds=("fusion",))
def check_n_explicit_and_inferred(subject: Subject) -> None:
    """`n` may be given where it is free, is inferred where it follows, and a contradicting `n` raises a `DimsError`.

    Declare `Traits(free_n=True)` if n is a choice; else compute it from dims, and let the base class compare.
    """
    op = subject.build()
    n = op.calculate_n()
    inferred = _n_of(subject, n=None)
    if op.traits.free_n:  # The trait of the object, since an option may fix n.
        accepted = any(_n_of(subject, n=m) == m for m in (n + 1, n + 2, 2 * n, 2 * n + 1, 4 * n))
        expect(accepted, f"another n than {n} should be accepted, since free_n is declared", "none")
        return
    expect(inferred == n, f"n should be inferred as {n} from dims {list(subject.dims)}", repr(inferred))
    given = _n_of(subject, n=n)
    expect(given == n, f"the given n = {n} should be accepted, as it is what dims imply", repr(given))
    for wrong in (n + 1, 2 * n + 1):
        should = f"n = {wrong} should be refused with a DimsError, since n = {n} follows from dims"
        found = _n_of(subject, n=wrong)
        expect(isinstance(found, DimsError), should, f"an operator with n = {found}")


def _n_of(subject: Subject, **overrides: Any) -> int | DimsError:
    """Return n of the operator built with the overrides, or the ``DimsError`` that refuses it."""
    with no_error(f"{overrides} should be accepted, or refused with a DimsError"):
        try:
            return subject.construct(**overrides).calculate_n()
        except DimsError as error:
            return error


INVALID_DIMS: tuple[Any, ...] = ([], [4, 0], [4, -1], [4, 2.5], "44", ["4", "4"], [True, True], [None, 4], 4)


@rule(kinds=("fusion",), scope="first")
def check_n_invalid_dims(subject: Subject) -> None:
    """Dims that are missing, empty, zero, negative, floats, strings or booleans raise a `DimsError`.

    Let `calculate_n` begin with `self.resolve_dims(dims)`, and pass `dims` to `super().__init__`.
    """
    op = subject.build()
    for dims in INVALID_DIMS:
        refuses(partial(op.calculate_n, dims), f"calculate_n({dims!r})", DimsError)
        refuses(partial(subject.construct, dims=dims), f"the constructor with dims={dims!r}", DimsError)
    with no_error("the constructor should accept dims=None"):
        bare = subject.construct(dims=None, n=None)
    refuses(bare.calculate_n, "calculate_n() without dims", DimsError)
    if outcome(bare.calculate_l)[0] != 0:
        refuses(bare.calculate_l, "calculate_l() without dims", DimsError)


@rule(basic=True)
def check_l_matches_parameters(subject: Subject) -> None:
    """`calculate_l()` is the number of elements of the own parameters, frozen or not, without pre- and postprocess.

    Let `calculate_l` add up the sizes of what the constructor registers, and register every parameter, also those
    that are kept in lists.
    """
    op = subject.build()
    total = _count(op)
    shapes = {name: tuple(parameter.shape) for name, parameter in subject.own(op)}
    expect(_l(op) == total, f"calculate_l() should be {total}, the elements of the own parameters {shapes}", _l(op))
    op.requires_grad_(False)
    expect_value("calculate_l() when the parameters are frozen", _l(op), total)
    if subject.offers("preprocess", "postprocess"):
        extended = subject.build(preprocess={"name": "layer_norm"}, postprocess={"name": "linear"})
        expect_value("calculate_l() with a preprocess and a postprocess", _l(extended), total)


@rule()
def check_l_pure(subject: Subject) -> None:
    """`calculate_l` returns an int of at least 0, the same on every device and at every call, and stores nothing.

    Compute it from dims and options with integer arithmetic, and set no attribute.
    """
    found = {}
    for device in ("cpu", "meta"):
        op = subject.build(device=device)
        before = attributes(op)
        l = found[device] = works(f"calculate_l() on {device}", op.calculate_l)
        expect(type(l) is int and l >= 0, f"calculate_l() on {device} should return an int of at least 0", repr(l))
        expect_value("a second calculate_l()", op.calculate_l(), l)
        expect_unchanged("calculate_l should store nothing", before, attributes(op))
    expect_value("calculate_l() on meta, as on the cpu,", found["meta"], found["cpu"])
    op = subject.build(dtype=torch.bfloat16).train()
    with torch.no_grad():
        expect_value("calculate_l() without gradients, in training mode and in bfloat16,", op.calculate_l(), l)
    op.requires_grad_(False)
    expect_value("calculate_l() when the parameters are frozen", op.eval().calculate_l(), l)
    if isinstance(subject, FabricationSubject):
        _pure_in_size(subject)


def _pure_in_size(subject: FabricationSubject) -> None:
    n, D = subject.size
    fabrication = subject.made()
    before = attributes(fabrication)
    l = fabrication.calculate_l(n, D)
    for other in ((2 * n, 3 * D), (n + 1, D)):
        wanted, error = outcome(partial(subject.made().calculate_l, *other))
        if not isinstance(error, ValueError):
            expect_value(f"calculate_l{other} after another size", fabrication.calculate_l(*other), wanted)
    expect_value(f"calculate_l({n}, {D}) after other sizes", fabrication.calculate_l(n, D), l)
    expect_unchanged("calculate_l should store nothing", before, attributes(fabrication))


@rule()
def check_l_zero_iff_parameter_free(subject: Subject) -> None:
    """`l` is 0 if and only if there are no own parameters; with `require_parameters=False` every one of them is None.

    Create parameters normally in the constructor, and pass `require_parameters` to `super().__init__`.
    """
    op = subject.build()
    names = [name for name, _ in subject.own(op)]
    should = f"l should be {'more than 0' if names else '0'} with the own parameters {names}"
    expect((_l(op) == 0) == (not names), should, _l(op))
    if not names and not subject.offers("require_parameters"):
        return
    bare = subject.build(require_parameters=False)
    expect_value("l with require_parameters=False", _l(bare), _l(op))
    expect_value("the own parameters with require_parameters=False", [name for name, _ in subject.own(bare)], [])
    shapes = shapes_of(bare)
    missing = [name for name in names if shapes.get(name, ()) is not None]
    should = "every own parameter should be an entry that is None with require_parameters=False"
    expect(not missing, should, f"no {missing}")


@rule(scope="first")
def check_l_every_fabrication(subject: Subject) -> str:
    """With every registered fabrication l is the sum of the fabricated matrices' parameters, and W has shape (n, D).

    Take shapes and l from the fabrication itself, for the (n, D) of this operator.
    """
    if isinstance(subject, FabricationSubject):
        return "l/(n*D) = " + _fabricated(subject, subject.build(), "")
    skip_if(not subject.accepts("parameter_fabrication"), "the operator takes no fabrication")
    ratios = []
    for key in importable_fabrications():
        op = subject.build(parameter_fabrication={"name": key})
        ratios.append(f"{key} {_fabricated(subject, op, f' with the fabrication {key}')}")
    return "l/(n*D): " + ", ".join(ratios)


def _fabricated(subject: Subject, op: Fusion, where: str) -> str:
    """Expect l and the shapes of the operator's fabrications; return the ratio of parameters to entries of W."""
    l = works(f"calculate_l(){where}", op.calculate_l)
    expect_value(f"calculate_l(){where}, the elements of the own parameters,", l, _count(op))
    parts = entries = 0
    for _, fabrication, n, widths in subject.prepared(op):
        D = sum(widths)
        part = fabrication.calculate_l(n, D)
        shapes = fabrication.shapes(n, D)
        size = sum(math.prod(shape) for shape in shapes.values())
        expect(part == size, f"l of a fabrication{where} should be {size}, the sizes of its blocks {shapes}", part)
        has_shape(f"W{where}", fabrication.materialize(torch.randn(part), n, D), (n, D))
        parts += part
        entries += n * D
    expect(parts <= l, f"l{where} should include the {parts} parameters of its fabrications", l)
    return f"{parts / entries:.3g}" if entries else "-"


@rule(tier=2, scope="first", needs=("hypothesis",))
def check_l_property(subject: Subject) -> None:
    """For random dims, n and integer options `calculate_l()` is the number of own parameters, or they are refused.

    Look for a formula that holds for the examples only: divisions that do not come out even, widths of 1, n > D.
    """
    import hypothesis
    from hypothesis import strategies as st

    numbers = [
        option for option, value in subject.case.options.items() if type(value) is int and option not in ("n", "seed")
    ]
    twos = (2,) * len(numbers)
    widths = st.lists(st.integers(1, 9), min_size=1, max_size=5)
    equal = st.builds(lambda width, k: [width] * k, st.integers(1, 9), st.integers(1, 12))

    @hypothesis.settings(
        database=None,
        derandomize=True,
        deadline=None,
        max_examples=25,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.example([3] * 12, 3, twos)
    @hypothesis.example([1, 2] * 6, 3, twos)
    @hypothesis.example([9, 9], 3, twos)
    @hypothesis.given(widths | equal, st.integers(1, 12), st.tuples(*(st.integers(1, 6) for _ in numbers)))
    def verify(dims: list[int], n: int, values: tuple[int, ...]) -> None:
        hypothesis.assume(_l_is_right(subject, dims, n, dict(zip(numbers, values, strict=True))))

    home = getattr(hypothesis.configuration, "__hypothesis_home_directory", None)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            no_error("random sizes should be accepted, or refused with a ValueError"),
        ):
            hypothesis.configuration.set_hypothesis_home_dir(folder)  # Otherwise it leaves one in the current folder.
            verify()
    except Violation as violation:
        if not isinstance(violation.__cause__, hypothesis.errors.HypothesisException):
            raise
        skip(f"too few random sizes are admitted ({describe(violation.__cause__, 80)})")
    finally:
        hypothesis.configuration.set_hypothesis_home_dir(home)


def _l_is_right(subject: Subject, dims: list[int], n: int, options: dict[str, Any]) -> bool:
    """Compare l with the number of own parameters; False if the sizes are refused."""
    try:
        if isinstance(subject, FabricationSubject):
            op = subject.resized(n, tuple(dims), options)
        else:
            op = subject.construct(dims=dims, n=n if subject.traits.free_n else None, device="meta", **options)
    except ValueError:
        return False
    what = f"dims={dims}, n={n}" + "".join(f", {key}={value}" for key, value in options.items())
    expect_value(f"calculate_l(), the number of own parameters, for {what}", _l(op), _count(op))
    return True


@rule(tier=2)
def check_no_work_in_init(subject: Subject) -> None:
    """Building the operator on the meta device allocates no memory for parameters or frozen parts.

    Create tensors with `**self._factory`, and draw values in `reset_parameters` or `_draw_frozen`.
    """
    with LargestOnCpu() as largest:
        op = subject.build(device="meta")
    allowed = 16 + sum(subject.dims) + op.calculate_n()  # A vector of widths or weights is no work.
    should = f"building on meta should create no tensor of more than {allowed} elements on the cpu"
    expect(largest.elements <= allowed, should, f"one of {largest.elements}, by {largest.by}")
    stray = [name for name, tensor in tensors_of(op).items() if not tensor.is_meta]
    expect(not stray, "parameters and buffers should be on meta", stray)


# ---------------------------------------------------------------------- helpers


def _count(op: Fusion) -> int:
    return sum(parameter.numel() for _, parameter in Subject.own(op))


def _l(op: Fusion) -> object:
    l, error = outcome(op.calculate_l)
    return l if error is None else describe(error)
