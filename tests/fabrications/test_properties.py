"""Every registered fabrication keeps every property, over its examples and over all kinds of sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fusionkit import registry
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.kernels.planning import BreakEven
from tests.exhaustive import exhaustive_unless
from tests.fabrications.fabrication_properties import PROPERTIES, SLOW_PROPERTIES, Case, cases, derivatives, name_of

CASES = [
    case
    for record in registry.records("fabrication")
    if record.distribution == "tensor-fusionkit"
    for case in cases(record.name, *(dict(o) for o in registry.load("fabrication", record.name).examples() if o))  # type: ignore[attr-defined]
]
#: Two sizes of each: views that do not divide, and n > D.
FEW = [case for case in CASES if (case.n, list(case.dims)) in ((5, [3, 4]), (13, [2, 3]))]


def runs_by_default(case: Case) -> bool:
    return not case.options and (case.n, list(case.dims)) == (5, [3, 4])


def slow_runs_by_default(pair: tuple[Case, Callable[[Case], None]]) -> bool:
    """Derivatives run for every fabrication, the compiler and the exporter for three."""
    case, prop = pair
    return runs_by_default(case) and (prop is derivatives or case.name in ("dense", "fourier", "view_lowrank"))


def ids(thing: Case) -> str:
    return f"{thing.name}-{thing}"


@pytest.mark.parametrize("prop", PROPERTIES, ids=name_of)
@pytest.mark.parametrize("case", exhaustive_unless(runs_by_default, CASES), ids=ids)
def test_property(prop: Callable[[Case], None], case: Case) -> None:
    prop(case)


@pytest.mark.parametrize(
    ("case", "prop"),
    exhaustive_unless(slow_runs_by_default, [(case, prop) for case in FEW for prop in SLOW_PROPERTIES]),
    ids=lambda thing: ids(thing) if isinstance(thing, Case) else name_of(thing),
)
def test_slow_property(prop: Callable[[Case], None], case: Case) -> None:
    prop(case)


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
@pytest.mark.parametrize("own", [True, False], ids=["own product", "W built"])
def test_one_noncontiguous_view_that_needs_no_padding(name: str, own: bool) -> None:
    """It is joined with nothing, so nothing copies it on the way."""
    op = ParameterizedConcatenation(16, [16], parameter_fabrication=name, dtype="float64")
    if op.fabrication._break_even is not None:
        op.fabrication._break_even = BreakEven(-1.0 if own else 1.0, 0.0)
    W = op.fabrication.materialize(op.flat_w(), 16, 16)
    for x in (torch.randn(16, 6, dtype=torch.float64).T, torch.randn(6, 32, dtype=torch.float64)[:, ::2]):
        torch.testing.assert_close(op([x.requires_grad_()]), x @ W.T)
        torch.testing.assert_close(torch.autograd.grad(op([x]).sum(), x)[0], W.sum(0).expand(6, 16))
