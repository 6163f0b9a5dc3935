"""W of the core's fabrications, written as loops over the definitions; shares no code with them.

The blocks are those of ``w`` and the frozen parts, by name, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product

import torch
from torch import Tensor

from fusionkit.contract.rules import expect
from fusionkit.fabrication import Fabrication

__all__ = ["oracle_of"]

Blocks = Mapping[str, Tensor]
Oracle = Callable[[Blocks, int, int], Tensor]
Entry = Callable[[int, int], float]


def oracle_of(subject: str, fabrication: Fabrication) -> Oracle | None:
    """Return an independent definition of W: the class's ``reference(blocks, n, D)``, or that of a core fabrication."""
    reference = getattr(fabrication, "reference", None)
    if callable(reference):
        return reference  # type: ignore[no-any-return]
    distribution, _, name = subject.partition("/")
    make = ORACLES.get(name) if distribution == "fusionkit" else None
    return None if make is None else make(fabrication)


def _filled(n: int, D: int, entry: Entry) -> Tensor:
    W = torch.empty(n, D, dtype=torch.float64)
    for i, j in product(range(n), range(D)):
        W[i, j] = entry(i, j)
    return W


def _dot(a: Tensor, b: Tensor) -> float:
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def _simple(entry: Callable[[Blocks, int, int], Entry]) -> Callable[[Fabrication], Oracle]:
    """Return the factory of an oracle that needs nothing of the fabrication but its blocks."""
    return lambda fabrication: lambda blocks, n, D: _filled(n, D, entry(blocks, n, D))


def _times(left: Callable[[Blocks], Tensor], right: Callable[[Blocks], Tensor]) -> Callable[[Fabrication], Oracle]:
    """Return the factory for the Kronecker product of two matrices, cropped."""

    def entry(blocks: Blocks, n: int, D: int) -> Entry:
        A, B = left(blocks), right(blocks)
        s, t = B.shape
        return lambda i, j: float(A[i // s, j // t]) * float(B[i % s, j % t])

    return _simple(entry)


def _matrix(a: Tensor, b: Tensor) -> Tensor:
    return _filled(a.shape[0], b.shape[1], lambda i, j: _dot(a[i], b[:, j]))


def _kronecker_sum(blocks: Blocks, n: int, D: int) -> Entry:
    A, B = blocks["A"], blocks["B"]
    _, s, t = B.shape
    return lambda i, j: math.fsum(float(a[i // s, j // t]) * float(b[i % s, j % t]) for a, b in zip(A, B, strict=True))


def _view_lowrank(fabrication: Fabrication) -> Oracle:
    def oracle(blocks: Blocks, n: int, D: int) -> Tensor:
        parts, k = [], 1
        while f"A_{k}" in blocks:
            parts.append(_matrix(blocks[f"A_{k}"], blocks[f"B_{k}"]))
            k += 1
        return torch.cat(parts, 1)

    return oracle


def _vera(blocks: Blocks, n: int, D: int) -> Entry:
    u, v, A, B = (blocks[name] for name in ("u", "v", "A", "B"))
    return lambda i, j: float(u[i]) * math.fsum(float(A[i, k]) * float(v[k]) * float(B[k, j]) for k in range(len(v)))


def _khatri_rao(blocks: Blocks, n: int, D: int) -> Entry:
    B1, A1, B2, A2 = (blocks[name] for name in ("B1", "A1", "B2", "A2"))
    return lambda i, j: _dot(B1[i], A1[:, j]) * _dot(B2[i], A2[:, j])


def _masked(blocks: Blocks, n: int, D: int) -> Entry:
    kept = {int(position): float(value) for position, value in zip(blocks["positions"], blocks["values"], strict=True)}
    return lambda i, j: kept.get(i * D + j, 0.0)


def _duplicated(blocks: Blocks, n: int, D: int) -> Entry:
    B = blocks["B"]
    s, t = B.shape
    return lambda i, j: float(B[i % s, j % t])


def _block_diagonal(blocks: Blocks, n: int, D: int) -> Entry:
    B = blocks["B"]
    s, t = B.shape
    return lambda i, j: float(B[i % s, j % t]) if i // s == j // t else 0.0


def _monarch(blocks: Blocks, n: int, D: int) -> Entry:
    R, L = blocks["R"], blocks["L"]
    nb, c, ib = R.shape
    ob = L.shape[1]

    def entry(i: int, j: int) -> float:
        b, o = divmod(i, ob)
        total = 0.0
        for t in range(c):
            # Input t of block b of L is entry t*nb + b of blockdiag(R) x.
            block, row = divmod(t * nb + b, c)
            if block == j // ib:
                total += float(L[b, o, t]) * float(R[block, row, j % ib])
        return total

    return entry


def _block_circulant(blocks: Blocks, n: int, D: int) -> Entry:
    c = blocks["c"]
    b = c.shape[2]
    return lambda i, j: float(c[i // b, j // b, (i % b - j % b) % b])


def _toeplitz(blocks: Blocks, n: int, D: int) -> Entry:
    return lambda i, j: float(blocks["c"][i - j + D - 1])


def _fourier(blocks: Blocks, n: int, D: int) -> Entry:
    terms = list(zip(blocks["f"].tolist(), *blocks["frequencies"].tolist(), strict=True))

    def entry(i: int, j: int) -> float:
        waves = (f * math.cos(2 * math.pi * (u * i / n + v * j / D)) for f, u, v in terms)
        return math.fsum(waves) / math.sqrt(n * D)

    return entry


def _tensor_train(blocks: Blocks, n: int, D: int) -> Entry:
    cores = list(blocks.values())
    cores[0], cores[-1] = cores[0][None], cores[-1][..., None]

    def digits(number: int, sizes: list[int]) -> list[int]:
        found = []
        for size in reversed(sizes):
            number, digit = divmod(number, size)
            found.append(digit)
        return found[::-1]

    def entry(i: int, j: int) -> float:
        rows = digits(i, [core.shape[1] for core in cores])
        columns = digits(j, [core.shape[2] for core in cores])
        state = [1.0]
        for core, a, b in zip(cores, rows, columns, strict=True):
            state = [
                math.fsum(state[p] * float(core[p, a, b, q]) for p in range(core.shape[0]))
                for q in range(core.shape[3])
            ]
        return state[0]

    return entry


def _leaky(value: float) -> float:
    return value if value >= 0 else 0.2 * value


def _layer(values: list[float], matrix: Tensor) -> list[float]:
    return [
        math.fsum(value * float(weight) for value, weight in zip(values, column, strict=True)) for column in matrix.T
    ]


def _hypernet(blocks: Blocks, n: int, D: int) -> Entry:
    if "H" in blocks:
        hidden = [_leaky(value) for value in _layer(blocks["w"].tolist(), blocks["H"])]
    else:
        hidden = [_leaky(value) for value in _layer(_layer(blocks["w"].tolist(), blocks["P"]), blocks["Q"])]
        hidden = _layer(hidden, blocks["S"])
    A, B = blocks["A"], blocks["B"]
    return lambda i, j: math.fsum(float(A[i, k]) * hidden[k] * float(B[k, j]) for k in range(len(hidden)))


def _hashed(fabrication: Fabrication) -> Oracle:
    """Expect the sharing: each entry is plus or minus one parameter, each parameter in n*D/K entries, rounded."""

    def oracle(blocks: Blocks, n: int, D: int) -> Tensor:
        w = blocks["w"]
        W = fabrication.materialize(w, n, D).detach()
        counts = [0] * len(w)
        shared = torch.empty_like(W)
        for i, j in product(range(n), range(D)):
            k = min(range(len(w)), key=lambda k: abs(abs(float(w[k])) - abs(float(W[i, j]))))
            counts[k] += 1
            shared[i, j] = math.copysign(abs(float(w[k])), float(W[i, j]))
        low = n * D // len(w)
        fair = all(count in (low, low + 1) for count in counts)
        expect(fair, f"every parameter should stand in {low} or {low + 1} entries of W", f"{counts} entries")
        return shared

    return oracle


def _constant(fabrication: Fabrication) -> Oracle:
    return lambda blocks, n, D: _filled(n, D, lambda i, j: float(fabrication.value))  # type: ignore[arg-type]


ORACLES: dict[str, Callable[[Fabrication], Oracle]] = {
    "dense": _simple(lambda blocks, n, D: lambda i, j: float(blocks["weight"].reshape(-1)[i * D + j])),
    "lowrank": _simple(lambda blocks, n, D: lambda i, j: _dot(blocks["A"][i], blocks["B"][:, j])),
    "view_lowrank": _view_lowrank,
    "kronecker": _times(lambda blocks: blocks["A"], lambda blocks: blocks["B"]),
    "kronecker_sum": _simple(_kronecker_sum),
    "lowrank_kronecker": _times(lambda blocks: blocks["A"], lambda blocks: _matrix(blocks["S"], blocks["T"])),
    "dual_lowrank_kronecker": _times(
        lambda blocks: _matrix(blocks["P"], blocks["Q"]), lambda blocks: _matrix(blocks["S"], blocks["T"])
    ),
    "random_matrix_adaption": _simple(_vera),
    "hypernet": _simple(_hypernet),
    "random_matrix_hypernet": _simple(_hypernet),
    "constant": _constant,
    "zero": _simple(lambda blocks, n, D: lambda i, j: 0.0),
    "one": _simple(lambda blocks, n, D: lambda i, j: 1.0),
    "constant_eye": _simple(lambda blocks, n, D: lambda i, j: float(i == j)),
    "masked": _simple(_masked),
    "duplicated_padding": _simple(_duplicated),
    "block_diagonal": _simple(_block_diagonal),
    "monarch": _simple(_monarch),
    "block_circulant": _simple(_block_circulant),
    "toeplitz": _simple(_toeplitz),
    "khatri_rao": _simple(_khatri_rao),
    "fourier": _simple(_fourier),
    "tensor_train": _simple(_tensor_train),
    "hashed": _hashed,
}
