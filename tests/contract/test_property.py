"""Random dims, n, k and ranks: the base class, the flagship and the kit agree with each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fusionkit
from fusionkit.errors import FusionError

COMMON = settings(
    deadline=None, max_examples=40, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
WIDTHS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@COMMON
@given(dims=WIDTHS, n=st.integers(1, 30), r=st.integers(1, 12), lead=st.lists(st.integers(0, 3), max_size=2))
def test_lowrank_of_any_size_keeps_its_contract(dims: list[int], n: int, r: int, lead: list[int]) -> None:
    most = min(n, sum(dims))
    options: dict[str, Any] = {"dims": dims, "n": n, "parameter_fabrication": {"name": "lowrank", "r": r}}
    if r > most:
        with pytest.raises(FusionError, match=str(most)):
            fusionkit.create("parameterized_concatenation", **options)
        return
    op: Any = fusionkit.create("parameterized_concatenation", **options, dtype="float64")
    assert op.calculate_l() == r * (n + sum(dims)) == op.flat_w().numel()
    x = [torch.randn(*lead, width, dtype=torch.float64) for width in dims]
    out = op(x)
    assert tuple(out.shape) == (*lead, n)
    assert torch.allclose(out, op.reference(x))
    assert torch.allclose(op(x, w=op.flat_w()), out)


@COMMON
@given(name=st.sampled_from(["summation", "average"]), width=st.integers(1, 20), k=st.integers(1, 9))
def test_elementwise_fusions_of_any_size(name: str, width: int, k: int) -> None:
    op: Any = fusionkit.create(name, dims=[width] * k)
    x = [torch.randn(3, width) for _ in range(k)]
    assert (op.calculate_n(), op.calculate_l()) == (width, 0)
    assert torch.allclose(op(x).double(), op.reference(x), atol=1e-5)


@COMMON
@given(dims=WIDTHS)
def test_the_kit_passes_operators_of_any_size(dims: list[int]) -> None:
    op = fusionkit.create("parameterized_concatenation", dims=dims, n=3)
    checks = ["n_matches_output", "l_matches_parameters", "forward_shape", "wrong_dims", "external_w", "state_dict"]
    report = fusionkit.check(op, select=checks)
    assert report.ok, report
