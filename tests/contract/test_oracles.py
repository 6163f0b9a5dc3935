"""The oracles of the kit against matrices written down by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.contract.oracles import ORACLES, oracle_of
from tests.contract.mutants.right import Thin


def t(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


A = t([[1, 2], [3, 4]])
B = t([[0, 5], [6, 7]])
HAND: dict[str, tuple[dict[str, Tensor], Any]] = {
    "dense": ({"weight": A}, [[1, 2], [3, 4]]),
    "lowrank": ({"A": t([[1], [2]]), "B": t([[3, 4, 5]])}, [[3, 4, 5], [6, 8, 10]]),
    "kronecker": ({"A": A, "B": B}, [[0, 5, 0, 10], [6, 7, 12, 14], [0, 15, 0, 20]]),
    "kronecker_sum": ({"A": A[None].repeat(2, 1, 1), "B": torch.stack([B, -B])}, [[0, 0, 0, 0], [0, 0, 0, 0]]),
    "duplicated_padding": ({"B": B}, [[0, 5, 0], [6, 7, 6], [0, 5, 0]]),
    "block_diagonal": ({"B": B}, [[0, 5, 0], [6, 7, 0], [0, 0, 0], [0, 0, 6]]),
    "toeplitz": ({"c": t([1, 2, 3, 4])}, [[3, 2, 1], [4, 3, 2]]),
    "block_circulant": ({"c": t([[[1, 2, 3]]])}, [[1, 3, 2], [2, 1, 3], [3, 2, 1]]),
    "khatri_rao": (
        {"B1": t([[1], [2]]), "A1": t([[1, 1]]), "B2": t([[1], [1]]), "A2": t([[3, 4]])},
        [[3, 4], [6, 8]],
    ),
    "random_matrix_adaption": (
        {"u": t([1, 10]), "v": t([2]), "A": t([[1], [1]]), "B": t([[3, 4]])},
        [[6, 8], [60, 80]],
    ),
    "masked": ({"values": t([7, 8]), "positions": torch.tensor([1, 4])}, [[0, 7, 0], [0, 8, 0]]),
    "monarch": (
        {"R": t([[[1, 2]], [[3, 4]]]), "L": t([[[5]], [[6]]])},
        [[5, 10, 0, 0], [0, 0, 18, 24]],
    ),
    "fourier": ({"f": t([2]), "frequencies": torch.tensor([[1], [0]])}, [[1, 1], [-1, -1]]),
    "tensor_train": ({"G_1": t([[[1], [2]]]), "G_2": t([[[3], [4]]])}, [[3, 6], [4, 8]]),
    "constant_eye": ({}, [[1, 0], [0, 1], [0, 0]]),
    "zero": ({}, [[0, 0]]),
    "one": ({}, [[1, 1]]),
}


@pytest.mark.parametrize("name", HAND)
def test_oracle(name: str) -> None:
    blocks, wanted = HAND[name]
    W = t(wanted)
    oracle = ORACLES[name](Thin())
    assert torch.allclose(oracle(blocks, *W.shape), W)


def test_class_with_a_reference_is_its_own_oracle() -> None:
    class Own(Thin):
        def reference(self, blocks: Any, n: int, D: int) -> Tensor:
            return torch.zeros(n, D)

    fabrication = Own()
    assert oracle_of("elsewhere:Own", fabrication) == fabrication.reference
    assert oracle_of("elsewhere:Thin", Thin()) is None
    assert oracle_of("another/lowrank", Thin()) is None


def test_every_core_fabrication_has_an_oracle() -> None:
    core = {record.name for record in fusionkit.registry.records("fabrication") if record.distribution == "fusionkit"}
    assert core - set(ORACLES) == set()
