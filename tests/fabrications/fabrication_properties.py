"""What every fabrication promises, one function per property; the tests run them over the cases of each."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit import registry
from fusionkit.fabrication import Fabrication
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation

#: One view, n = 1, D = 1, n > D, primes, views of width 1, sizes that divide.
SIZES: list[tuple[int, list[int]]] = [
    (1, [1]),
    (1, [7]),
    (7, [1]),
    (5, [3, 4]),
    (13, [2, 3]),
    (4, [4, 4]),
    (11, [5, 1, 13]),
    (16, [8, 1, 7, 16]),
]


@dataclass(frozen=True)
class Case:
    """A fabrication of one size."""

    name: str
    n: int
    dims: Sequence[int]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def D(self) -> int:
        return sum(self.dims)

    @property
    def cls(self) -> type[Fabrication]:
        found = registry.load("fabrication", self.name)
        assert issubclass(found, Fabrication)
        return found

    def fabrication(self) -> Fabrication:
        made = fusionkit.create_fabrication(self.name, **self.options)
        assert isinstance(made, Fabrication)
        # Its own product also at small sizes, where building W would often be chosen.
        vars(made)["never_builds_W"] = True
        return made

    def operator(self, **options: Any) -> ParameterizedConcatenation:
        return ParameterizedConcatenation(self.n, self.dims, parameter_fabrication=self.fabrication(), **options)

    def length(self) -> int:
        return self.fabrication().calculate_l(self.n, self.D)

    def w(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(self.length(), dtype=dtype)

    def x(self, *lead: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        return [torch.randn(*lead, width, dtype=dtype) for width in self.dims]

    def __str__(self) -> str:
        options = "".join(f",{key}={value}" for key, value in self.options.items())
        return f"{self.n}x{'+'.join(map(str, self.dims))}{options}"


def cases(name: str, *options: dict[str, Any], sizes: Iterable[tuple[int, list[int]]] = SIZES) -> list[Case]:
    """Return the default options over all sizes, and the given ones, each over the sizes for which they are valid."""
    found = []
    for some in ({}, *options):
        for n, dims in sizes:
            case = Case(name, n, dims, some)
            try:
                case.length()
            except ValueError:
                assert some, "the default options should do for every size"
                continue
            found.append(case)
        assert found, f"no size is valid for {some}"
        assert found[-1].options == some, f"no size is valid for {some}"
    return found


# ---------------------------------------------------------------------- values


def length(case: Case) -> None:
    made = case.fabrication()
    shapes = made.shapes(case.n, case.D)
    l = made.calculate_l(case.n, case.D)
    assert type(l) is int
    assert l == sum(prod(shape) for shape in shapes.values())
    assert all(type(size) is int and size > 0 for shape in shapes.values() for size in shape)
    # Another size in between changes nothing.
    made.calculate_l(case.n + 50, case.D + 50)
    assert made.shapes(case.n, case.D) == shapes
    # The blocks of an operator may follow the widths of its views.
    op = case.operator()
    shapes = op.fabrication.shapes(case.n, case.D)
    assert {name: tuple(p.shape) for name, p in op.named_parameters()} == shapes
    assert op.calculate_l() == sum(prod(shape) for shape in shapes.values())


def project_equals_materialize(case: Case) -> None:
    made = case.fabrication()
    w = case.w().requires_grad_()
    for lead in ((), (3,), (0,), (2, 3)):
        x = [view.requires_grad_() for view in case.x(*lead)]
        W = made.materialize(w, case.n, case.D)
        assert W.shape == (case.n, case.D)
        expected = torch.cat(x, -1) @ W.T
        actual = made.project(x, w, case.n)
        assert actual.is_contiguous()
        torch.testing.assert_close(actual, expected)
        out = torch.randn_like(expected)
        inputs = [*x, w] if w.numel() else x
        for found, right in zip(
            torch.autograd.grad(actual, inputs, out), torch.autograd.grad(expected, inputs, out), strict=True
        ):
            torch.testing.assert_close(found, right)


def noncontiguous_views(case: Case) -> None:
    made, w = case.fabrication(), case.w()
    x = [torch.randn(2 * width, 6, dtype=torch.float64).T[:, ::2] for width in case.dims]
    versions = [view._version for view in x]
    torch.testing.assert_close(made.project(x, w, case.n), torch.cat(x, -1) @ made.materialize(w, case.n, case.D).T)
    assert [view._version for view in x] == versions


def call_is_materialize(case: Case) -> None:
    made, w = case.fabrication(), case.w()
    W = made.materialize(w, case.n, case.D)
    assert torch.equal(made(n=case.n, D=case.D, w=w[None], device="cpu"), W)
    assert W.dtype == torch.float64
    assert made.materialize(w.float(), case.n, case.D).dtype == torch.float32


# ---------------------------------------------------------------------- initial values


def initial_norm(case: Case) -> None:
    made = case.fabrication()
    # A single entry of W may be a sum that cancels.
    half = 0.05 if case.n * case.D > 1 else 0.5
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-4), (torch.bfloat16, half)):
        if not case.length():
            return
        w = torch.empty(case.length(), dtype=dtype)
        made.init_(w, case.n, case.D, torch.Generator().manual_seed(1))
        W = made.materialize(w.double(), case.n, case.D)
        assert W.square().sum().item() == pytest.approx(case.n, rel=tolerance)
        again, other = torch.empty_like(w)[None], torch.empty_like(w)
        made.init_(again, case.n, case.D, torch.Generator().manual_seed(1))
        made.init_(other, case.n, case.D, torch.Generator().manual_seed(2))
        assert torch.equal(again[0], w)
        # A single parameter has only its sign left.
        assert w.numel() == 1 or not torch.equal(other, w)
        op = case.operator(dtype=dtype)
        W = op.fabrication.materialize(op.flat_w(), case.n, case.D)
        assert W.double().square().sum().item() == pytest.approx(case.n, rel=max(tolerance, 0.001))


def squared_norm(case: Case) -> None:
    made, w = case.fabrication(), case.w()
    if w.numel():
        norm = made._squared_norm(made.split(w, case.n, case.D), case.n, case.D)
        torch.testing.assert_close(norm, made.materialize(w, case.n, case.D).square().sum())


def padding_is_what_cannot_matter(case: Case) -> None:
    made = case.fabrication()
    if not case.length():
        assert made.padding(case.n, case.D) == {}
        return
    shapes, masks = made.shapes(case.n, case.D), made.padding(case.n, case.D)
    for name, mask in masks.items():
        assert mask.dtype == torch.bool
        assert tuple(mask.shape) == shapes[name]
        assert mask.any()
    dead = torch.cat(
        [masks.get(name, torch.zeros(shape, dtype=torch.bool)).reshape(-1) for name, shape in shapes.items()]
    )
    jacobian = torch.func.jacrev(lambda w: made.materialize(w, case.n, case.D))(case.w())
    assert torch.equal((jacobian == 0).all(0).all(0), dead)


# ---------------------------------------------------------------------- derivatives and transforms


def derivatives(case: Case) -> None:
    made = case.fabrication()
    inputs = [t.requires_grad_() for t in (*case.x(2), *([case.w()] if case.length() else []))]
    k = len(case.dims)

    def function(*t: Tensor) -> Tensor:
        return made.project(t[:k], t[k] if case.length() else t[0].new_empty(0), case.n)

    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, inputs)


def transforms(case: Case) -> None:
    op = case.operator(dtype="float64")
    many, x = torch.randn(4, op.calculate_l(), dtype=torch.float64), case.x(3)
    expected = torch.stack([op(x, w=w) for w in many])
    if case.length():
        torch.testing.assert_close(torch.vmap(lambda w: op(x, w=w))(many), expected)
    rows = torch.vmap(lambda *x: op(x, w=many[0]))(*x)
    torch.testing.assert_close(rows, expected[0])
    # Unprepared, the frozen parts are drawn inside the transform.
    made = case.fabrication()
    if made.shapes(case.n, case.D) == op.fabrication.shapes(case.n, case.D):
        torch.testing.assert_close(torch.vmap(lambda *x: made.project(x, many[0], case.n))(*x), expected[0])
    if case.length():
        tangent: Tensor = torch.func.jvp(lambda w: op(x, w=w), (many[0],), (many[1],))[1]
        assert tangent.shape == expected[0].shape


def compiled(case: Case) -> None:
    op, x = case.operator(), [view.requires_grad_() for view in case.x(3, dtype=torch.float32)]
    inputs = [*x, *op.parameters()]
    torch._dynamo.reset()
    fast = torch.compile(op, fullgraph=True, backend="aot_eager")
    actual, expected = fast(x), op(x)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    for found, right in zip(
        torch.autograd.grad(actual.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-4)


def exported(case: Case) -> None:
    op, x = case.operator(), case.x(3, dtype=torch.float32)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(op, (x,), dynamic_shapes=([{0: batch} for _ in x],))
    x = case.x(5, dtype=torch.float32)
    torch.testing.assert_close(program.module()(x), op(x), atol=1e-5, rtol=1e-4)


def half_precision(case: Case) -> None:
    if case.n * case.D == 1:
        return  # One sum, which may cancel.
    for dtype, tolerance in ((torch.bfloat16, 0.02), (torch.float16, 0.0025)):
        op, x = case.operator(dtype=dtype), case.x(64, dtype=dtype)
        out = op(x)
        assert out.dtype == dtype
        exact = torch.cat(x, -1).double() @ op.fabrication.materialize(op.flat_w().double(), case.n, case.D).T
        scale = exact.square().mean().sqrt()
        assert (out.double() - exact).square().mean().sqrt() <= tolerance * scale
        op = case.operator()
        with torch.autocast("cpu", dtype=dtype):
            out = op([view.float() for view in x])
        exact = torch.cat(x, -1).double() @ op.fabrication.materialize(op.flat_w().double(), case.n, case.D).T
        assert (out.double() - exact).square().mean().sqrt() <= tolerance * exact.square().mean().sqrt()


# ---------------------------------------------------------------------- state


def meta(case: Case) -> None:
    op = case.operator(device="meta", dtype="float64")
    assert all(tensor.is_meta for tensor in op.state_dict().values())
    assert op([view.to("meta") for view in case.x(3)]).shape == (3, case.n)
    op.to_empty(device="cpu")
    op.reset_parameters(torch.Generator().manual_seed(3))
    other = case.operator(dtype="float64")
    other.reset_parameters(torch.Generator().manual_seed(3))
    assert op.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in op.state_dict().items())
    x = case.x(3)
    assert torch.equal(op(x), other(x))


def frozen_parts(case: Case) -> None:
    made, n, D = case.fabrication(), case.n, case.D
    shapes = made.frozen_shapes(n, D)
    drawn = made._draw_frozen(n, D)
    assert {name: tuple(value.shape) for name, value in drawn.items()} == shapes
    assert drawn.keys() == shapes.keys()
    assert all(value.dtype == made.frozen_dtypes.get(name, torch.float32) for name, value in drawn.items())
    with torch.device("meta"):
        assert all(value.device.type == "cpu" for value in made._draw_frozen(n, D).values())
    # Buffers of the operator from its construction on, in every dtype the same; unprepared, nothing is kept.
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        op = case.operator(dtype=dtype)
        buffers = dict(op.fabrication.named_buffers())
        assert buffers.keys() == drawn.keys()
        for name, value in drawn.items():
            assert torch.equal(buffers[name], value.to(made.frozen_dtypes.get(name, dtype)))
        w = case.w(dtype)
        if shapes:
            assert torch.equal(op.fabrication.materialize(w, n, D), made.materialize(w, n, D))
    assert not list(made.buffers())
    if not shapes:
        return
    # Another size is served too, and a loaded state wins over the seed.
    bigger = case.fabrication().calculate_l(n + 2, D + 3)
    assert op.fabrication.materialize(torch.randn(bigger), n + 2, D + 3).shape == (n + 2, D + 3)
    op = case.operator()
    state = {key: value.clone() for key, value in op.state_dict().items()}
    seeded = Case(case.name, n, case.dims, {**case.options, "seed": 12345}).operator()
    x = case.x(3, dtype=torch.float32)
    seeded.load_state_dict(state)
    assert torch.equal(seeded(x), op(x))


def state_is_stable(case: Case) -> None:
    op, x = case.operator(), case.x(3, dtype=torch.float32)
    before = {key: value.clone() for key, value in op.state_dict().items()}
    rng = torch.get_rng_state()
    first = op(x)
    assert torch.equal(op(x), first)
    assert torch.equal(torch.get_rng_state(), rng)
    assert op.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in op.state_dict().items())
    fresh = case.operator()
    fresh.load_state_dict(before)
    assert torch.equal(fresh(x), first)
    for twin in (pickle.loads(pickle.dumps(op)), copy.deepcopy(op)):
        assert torch.equal(twin(x), first)
        assert {t.data_ptr() for t in twin.state_dict().values() if t.numel()}.isdisjoint(
            t.data_ptr() for t in op.state_dict().values() if t.numel()
        )


def configs(case: Case) -> None:
    made = case.fabrication()
    assert made.to_config() == {"name": case.name, **case.options}
    twin = fusionkit.create_fabrication(**made.to_config())
    w = case.w()
    assert torch.equal(twin.materialize(w, case.n, case.D), made.materialize(w, case.n, case.D))
    assert type(case.cls(**case.options)) is type(made)
    for options in case.cls.examples():
        assert isinstance(fusionkit.create_fabrication(case.name, **options), Fabrication)


PROPERTIES: list[Callable[[Case], None]] = [
    length,
    project_equals_materialize,
    noncontiguous_views,
    call_is_materialize,
    initial_norm,
    squared_norm,
    padding_is_what_cannot_matter,
    transforms,
    half_precision,
    meta,
    frozen_parts,
    state_is_stable,
    configs,
]

#: These take longer: a case or two of each fabrication.
SLOW_PROPERTIES: list[Callable[[Case], None]] = [derivatives, compiled, exported]


def name_of(thing: Any) -> str:
    """Return the test id of a case or a property."""
    return str(getattr(thing, "__name__", thing))
