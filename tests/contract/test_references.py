"""The ``reference`` methods of the core: each is compared by the kit, and a few here, with matrices by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit import registry
from fusionkit.fabrications._reference import dot, filled, kronecker_entry, product

A = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
B = torch.tensor([[0.0, 5.0], [6.0, 7.0]], dtype=torch.float64)


def test_the_loops_of_references() -> None:
    assert dot([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]) == 63.0
    assert product(A, B).tolist() == [[12, 19], [24, 43]]
    cropped = filled(3, 4, kronecker_entry(A, B))
    assert cropped.tolist() == [[0, 5, 0, 10], [6, 7, 12, 14], [0, 15, 0, 20]]
    assert filled(1, 1, lambda i, j: 2.0).dtype == torch.float64


#: name, options, w, W.
HAND: list[tuple[str, dict[str, Any], list[float], list[list[float]]]] = [
    ("dense", {}, [1, 2, 3, 4], [[1, 2], [3, 4]]),
    ("lowrank", {"r": 1}, [1, 2, 3, 4, 5], [[3, 4, 5], [6, 8, 10]]),
    ("kronecker", {"p": 2, "q": 2}, [1, 2, 3, 4, 0, 5, 6, 7], [[0, 5, 0, 10], [6, 7, 12, 14], [0, 15, 0, 20]]),
    ("toeplitz", {}, [1, 2, 3, 4], [[3, 2, 1], [4, 3, 2]]),
    ("zero", {}, [], [[0, 0]]),
    ("one", {}, [], [[1, 1]]),
    ("constant_eye", {}, [], [[1, 0], [0, 1], [0, 0]]),
]


@pytest.mark.parametrize(("name", "options", "w", "wanted"), HAND, ids=[name for name, *_ in HAND])
def test_reference(name: str, options: dict[str, Any], w: list[float], wanted: list[list[float]]) -> None:
    fabrication: Any = fusionkit.create_fabrication(name, **options)
    W: Tensor = fabrication.reference(torch.tensor(w, dtype=torch.float64), len(wanted), len(wanted[0]))
    assert W.tolist() == wanted


def test_every_core_fabrication_has_a_reference() -> None:
    core = [record for record in registry.records("fabrication") if record.distribution == "tensor-fusionkit"]
    assert core
    assert [record.name for record in core if not hasattr(registry.load("fabrication", record.name), "reference")] == []
