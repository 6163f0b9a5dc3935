"""Costs on the meta device against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest

import fusionkit
from fusionkit.errors import DimsError, FusionError, RegistryError


def test_dense_by_hand() -> None:
    found = fusionkit.cost("parameterized_concatenation", dims=[100, 200], n=50, m=5000)
    assert found["macs"] == 5000 * 300 * 50
    assert found["l"] == 300 * 50
    assert found["parameter_bytes"] == 4 * 300 * 50
    assert found["buffer_bytes"] == 0
    assert found["output_bytes"] == 4 * 5000 * 50
    # Above 2^20 elements nothing but the output is made.
    assert found["peak_activation_bytes"] == found["output_bytes"]
    assert all(type(value) in (int, str, list) for value in found.values())


@pytest.mark.parametrize(("m", "r"), [(5000, 8), (3, 2)])
def test_lowrank_by_hand(m: int, r: int) -> None:
    found = fusionkit.cost("lowrank", dims=[100, 200], n=50, m=m, r=r)
    assert found["kind"] == "fabrication"
    assert found["macs"] == m * r * (300 + 50)
    assert found["l"] == r * (300 + 50)


@pytest.mark.parametrize("m", [3, 1000])
def test_structured_products_by_hand(m: int) -> None:
    """Also where the rows are taken in blocks."""
    n, D = 512, 2048

    def macs(name: str, **options: Any) -> int:
        return int(fusionkit.cost(name, dims=[D // 2, D // 2], n=n, m=m, **options)["macs"])

    assert macs("kronecker", p=8, q=16) == m * min(D * 64 + 16 * n, D * 8 + n * 128)
    assert macs("kronecker_sum", R=3, p=8, q=16) == m * 3 * min(D * 64 + 16 * n, D * 8 + n * 128)
    assert macs("lowrank_kronecker", r=2, p=8, q=16) == m * 2 * (D + 8 * 16 + n)
    assert macs("dual_lowrank_kronecker", r=2, p=8, q=16) == m * (2 * (D + n) + 4 * (8 + 16))
    assert macs("monarch", nb=8) == m * 8 * 64 * (256 + 64)
    assert macs("random_matrix_adaption", r=4) == m * 4 * (n + D)


def test_frozen_parts_are_buffers() -> None:
    found = fusionkit.cost("random_matrix_adaption", dims=[100, 200], n=50, r=4)
    assert (found["l"], found["parameter_bytes"]) == (50 + 4, 4 * (50 + 4))
    assert found["buffer_bytes"] == 4 * 4 * (50 + 300)


def test_summation_has_no_products() -> None:
    found = fusionkit.cost("summation", dims=[10, 10, 10], m=7, dtype="float64")
    assert (found["macs"], found["elementwise"], found["l"], found["dtype"]) == (0, 2 * 70, 0, "float64")


def test_nothing_is_allocated() -> None:
    found = fusionkit.cost("parameterized_concatenation", dims=[10**6] * 4, n=10**6, m=10**6)
    assert found["parameter_bytes"] == 16 * 10**12


@pytest.mark.parametrize(
    "name",
    [
        *("kronecker", "kronecker_sum", "lowrank_kronecker", "dual_lowrank_kronecker", "duplicated_padding"),
        *("block_diagonal", "monarch", "hashed", "tensor_train", "block_circulant"),
    ],
)
def test_huge_prime_sizes(name: str) -> None:
    """What is counted for each number of blocks, or each piece of W, is bounded."""
    found = fusionkit.cost(name, dims=[3, 5], n=10**15 + 37)
    assert found["n"] == 10**15 + 37
    assert 0 < found["l"] <= 8 * found["n"]
    wide = fusionkit.cost(name, dims=[10**7 + 19, 10**7 + 79], n=10**7 + 19)
    assert 0 < wide["l"] <= (10**7 + 19) * (2 * 10**7 + 98)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kronecker", r"^W of kronecker should have at most 2\*\*53 entries; found n = 10{30} and D = 8\.$"),
        ("lowrank", "^parameterized_concatenation should have sizes that a tensor can have; found: .*Overflow"),
        ("hashed", "^parameterized_concatenation should have sizes that a tensor can have; found: .*Overflow"),
    ],
)
def test_too_great_a_matrix(name: str, message: str) -> None:
    with pytest.raises(DimsError, match=message):
        fusionkit.cost(name, dims=[3, 5], n=10**30)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("summation", {}, DimsError, "dims should be a sequence of widths"),
        ("summation", {"dims": [3, 4]}, DimsError, "should get views of equal width"),
        ("summation", {"dims": [3, 3], "m": -1}, DimsError, "m, the number of rows, should be"),
        (fusionkit.create("median"), {"dims": [3]}, RegistryError, "name of a fusion or fabrication .*string; found"),
        ("sumation", {"dims": [3]}, RegistryError, "Did you mean 'summation'"),
        ("lowrank", {"dims": [3], "n": 2, "r": 9}, FusionError, r"should be from 1 to min\(n, D\) = 2"),
    ],
)
def test_bad_input(name: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fusionkit.cost(name, **options)
