from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrications import hashed
from fusionkit.fabrications.hashed import Hashed
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation


def splitmix(seed: int, index: int) -> int:
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & (1 << 64) - 1
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = ((z ^ (z >> shift)) * factor) & (1 << 64) - 1
    return (z ^ (z >> 31)) & (1 << 31) - 1


def mixed(x: int) -> int:
    x &= (1 << 31) - 1
    for factor in (0x7FEB352D, 0x46CA68B5):
        x = ((x ^ (x >> 16)) * factor) & (1 << 31) - 1
    return x ^ (x >> 15)


def entry(i: int, j: int, n: int, D: int, K: int, seed: int) -> tuple[int, int]:
    """Return the number of the parameter in W_ij, and its sign."""
    for turn in range(2):
        i = (i + mixed(j + splitmix(seed, 2 * turn)) % n) % n
        j = (j + mixed(i + splitmix(seed, 2 * turn + 1)) % D) % D
    place = i * D + j
    return place % K, -1 if mixed(place + splitmix(seed, 4)) >> 30 else 1


@pytest.mark.parametrize(("n", "D", "K"), [(1, 1, 1), (5, 7, 3), (7, 5, 35), (1, 9, 4), (9, 1, 4), (20, 30, 37)])
@pytest.mark.parametrize("seed", [0, 12345678901234567890])
def test_against_loops(n: int, D: int, K: int, seed: int) -> None:
    made = Hashed(K=K, seed=seed)
    w = torch.randn(K, dtype=torch.float64)
    W = [[0.0] * D for _ in range(n)]
    for i in range(n):
        for j in range(D):
            bucket, sign = entry(i, j, n, D, K, seed)
            W[i][j] = sign * float(w[bucket])
    assert made.materialize(w, n, D).tolist() == W
    assert made.shapes(n, D) == {"w": (K,)}
    assert made.calculate_l(n, D) == K


@pytest.mark.parametrize(("n", "D", "K"), [(5, 7, 3), (7, 5, 35), (64, 649, 1000), (1, 100, 33)])
def test_every_parameter_stands_equally_often(n: int, D: int, K: int) -> None:
    W = Hashed(K=K).materialize(torch.arange(1, K + 1, dtype=torch.float64), n, D)
    often = Counter(W.abs().view(-1).tolist())
    assert len(often) == K
    assert set(often.values()) <= {n * D // K, -(-n * D // K)}


def test_sharing_and_signs_look_random() -> None:
    n, D = 64, 649
    W = Hashed(K=64).materialize(torch.arange(1, 65, dtype=torch.float64), n, D)
    signs, buckets = W.sign(), W.abs()
    # Mean of 41536 signs: standard deviation 0.005.  In each row, column and parameter likewise: at most 5 deviations.
    assert abs(signs.mean()) < 0.02
    assert (signs.mean(1).abs() < 5 / D**0.5).all()
    assert (signs.mean(0).abs() < 5 / n**0.5).all()
    assert all(abs(signs[buckets == k].mean()) < 5 / (n * D / 64) ** 0.5 for k in range(1, 65))
    # Two neighbouring entries share a parameter as often as chance has it, 1 of 64; so do two rows.
    assert (buckets[:, 1:] == buckets[:, :-1]).double().mean() == pytest.approx(1 / 64, abs=0.004)
    assert (buckets[1:] == buckets[:-1]).double().mean() == pytest.approx(1 / 64, abs=0.004)
    assert torch.linalg.matrix_rank(W) == n


def test_the_seed_decides() -> None:
    w = torch.randn(50)
    first, same, other = (Hashed(K=50, seed=seed).materialize(w, 20, 30) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert (first == other).double().mean() < 0.1


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    w = torch.randn(11)
    whole = Hashed(K=11).materialize(w, 17, 13)
    for chunk in (1, 13, 40):
        monkeypatch.setattr(hashed, "CHUNK", chunk)
        assert torch.equal(Hashed(K=11).materialize(w, 17, 13), whole)


def test_nothing_is_stored() -> None:
    op = ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication="hashed")
    before = dict(vars(op.fabrication))
    op([torch.randn(2, 3), torch.randn(2, 4)])
    assert vars(op.fabrication) == before
    assert list(op.state_dict()) == ["w"]


@pytest.mark.parametrize(("n", "D", "K"), [(64, 649, 2596), (1, 1, 1), (3, 5, 1), (3, 6, 2)])
def test_default_length(n: int, D: int, K: int) -> None:
    assert Hashed().calculate_l(n, D) == K


def test_length_out_of_range_is_refused_by_the_operator() -> None:
    with pytest.raises(FusionError) as caught:
        ParameterizedConcatenation(dims=[3, 4], n=5, parameter_fabrication={"name": "hashed", "K": 36})
    assert str(caught.value) == (
        "K, the number of parameters of hashed, should be from 1 to n*D = 35 for n = 5 and D = 7; found 36."
    )


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
def test_bad_length(value: Any) -> None:
    with pytest.raises(DimsError, match=r"^K, the number of parameters of hashed, should "):
        Hashed(K=value)
