"""The objects of the reference library work unchanged; skipped where it is not installed."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.bench.cases import EQUAL
from fusionkit.bench.reference_library import FUSIONS, _library, counterpart

pytestmark = [
    pytest.mark.skipif(_library() is None, reason="tinybig is not installed"),
    pytest.mark.filterwarnings("ignore:In hypernet"),
]

RECONCILIATIONS: list[tuple[str, dict[str, Any]]] = [
    ("identity_reconciliation", {}),
    ("lorr_reconciliation", {"r": 2}),
    ("hm_reconciliation", {"p": 2, "q": 3}),
    ("lphm_reconciliation", {"p": 2, "q": 3, "r": 2}),
    ("dual_lphm_reconciliation", {"p": 2, "q": 3, "r": 2}),
    ("masking_reconciliation", {"fixed_mask": True}),
    ("duplicated_padding_reconciliation", {"p": 2, "q": 3}),
    ("random_matrix_adaption_reconciliation", {"r": 2}),
    ("random_matrix_hypernet_reconciliation", {"l": 5, "r": 2, "hidden_dim": 4}),
    ("hypernet_reconciliation", {"l": 5, "hidden_dim": 4, "static": True}),
    ("constant_reconciliation", {"c": 0.5}),
    ("constant_eye_reconciliation", {}),
    ("zero_reconciliation", {}),
    ("one_reconciliation", {}),
]


@pytest.mark.parametrize(("name", "options"), RECONCILIATIONS, ids=[name for name, _ in RECONCILIATIONS])
def test_reconciliation_objects(name: str, options: dict[str, Any]) -> None:
    made = getattr(importlib.import_module("tinybig.reconciliation"), name)(**options)
    op = fusionkit.create("parameterized_concatenation", dims=[4, 8], n=6, parameter_fabrication=made)
    l = made.calculate_l(n=6, D=12)
    assert op.calculate_l() == l
    assert [tuple(p.shape) for p in op.parameters()] == [(l,)]
    x = [torch.randn(5, 4), torch.randn(5, 8)]
    out = op(x)  # Frozen parts of the object are drawn in its first call.
    W = made(n=6, D=12, w=op.flat_w().view(1, -1), device="cpu")
    torch.testing.assert_close(out, torch.cat(x, -1) @ W.T)
    out.sum().backward() if out.requires_grad else None
    w = torch.randn(1, l)
    torch.testing.assert_close(op(x, w), torch.cat(x, -1) @ made(n=6, D=12, w=w, device="cpu").T)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_counterparts_compute_the_same(name: str) -> None:
    x: list[Tensor] = [torch.randn(7, 3) for _ in range(5)]
    other = counterpart(name, [3] * 5, 4)
    assert other is not None
    if name == "dense":
        assert other(x).shape == (7, 4)
    else:
        torch.testing.assert_close(other(x), fusionkit.create(name, dims=[3] * 5)(x))


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_counterparts_compute_on_the_device_of_the_views(name: str) -> None:
    other = counterpart(name, [3] * 5, 4, "meta")
    assert other is not None
    assert other([torch.empty(7, 3, device="meta") for _ in range(5)]).is_meta


def test_other_names_have_none() -> None:
    assert counterpart("l2_norm", EQUAL[0].dims, 4) is None
