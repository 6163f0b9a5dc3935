"""A matrix whose entries share few parameters by a hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._options import limited
from fusionkit.fabrications._reference import filled
from fusionkit.fusion import check_size

#: Entries hashed at a time (eager mode), so that the temporary integers stay in the cache; on a GPU, which would wait
#: for the launches, so that they take 200 MB.
CHUNK, GPU_CHUNK = 2**16, 2**22
MASK = 2**31 - 1

Integers = TypeVar("Integers", int, Tensor)


class Hashed(Fabrication):
    """``W_ij = w[hash(i, j)] * sign(i, j)``; block w (K), l = K.

    The hash is computed in each call, never stored.  It shuffles the n*D positions and takes the result modulo K, so
    that every parameter occurs in floor(n*D/K) or ceil(n*D/K) entries of W and none is unused.  The shuffle is a
    Feistel network on (i, j) in Z_n x Z_D: i += F_0(j), j += F_1(i), i += F_2(j), j += F_3(i), where F_t is ``mix``
    with a key made of ``seed`` and t.  The sign is a bit of ``mix`` of the shuffled position.  Source: Chen et al.,
    "Compressing Neural Networks with the Hashing Trick", 2015, equation 7.

    Args:
        K: number of parameters, from 1 to n*D; None means one for 16 entries.
        seed: of the hash.
    """

    def __init__(self, K: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.K = None if K is None else check_size("K, the number of parameters of hashed,", K)
        self.seed = check_size("seed, of the hash of hashed,", seed, minimum=0)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and five parameters."""
        return [{}, {"K": 5, "seed": 1}]

    def count(self, n: int, D: int) -> int:
        """Return K, or the default for this size.

        Raises:
            FusionError: K is greater than n*D.
        """
        what = "K, the number of parameters of hashed,"
        return limited(what, self.K, -(-n * D // 16), "n*D", n * D, n, D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the shared parameters."""
        return {"w": (self.count(n, D),)}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        w = blocks["w"]
        # One gather does both: the second half of the table is the first with the other sign.
        return torch.cat([w, -w]).index_select(0, self._indices(n, D, w.device)).view(n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        K, keys = self.count(n, D), [key(self.seed, t) for t in range(5)]

        def entry(i: int, j: int) -> float:
            for t in (0, 2):
                i = (i + mix(j + keys[t]) % n) % n
                j = (j + mix(i + keys[t + 1]) % D) % D
            place = i * D + j
            negative = mix(place + keys[4]) >> 30
            return -float(w[place % K]) if negative else float(w[place % K])

        return filled(n, D, entry)

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        w = blocks["w"]
        K = len(w)
        return w.square() @ ((n * D - 1 - torch.arange(K, device=w.device)) // K + 1).to(w.dtype)

    def _indices(self, n: int, D: int, device: torch.device) -> Tensor:
        """Return hash(i, j), plus K where the sign is negative, (n*D)."""
        K = self.count(n, D)
        row, column = torch.arange(n, device=device), torch.arange(D, device=device)
        # Each F_t depends on one coordinate, hence is a table.
        tables = [
            mix(source + key(self.seed, t)) % size for t, (source, size) in enumerate(((column, n), (row, D)) * 2)
        ]
        sign_key = key(self.seed, 4)

        def chunk(rows: Tensor) -> Tensor:
            i = (rows[:, None] + tables[0]) % n
            j = (column + tables[1][i]) % D
            i = (i + tables[2][j]) % n
            j = (j + tables[3][i]) % D
            place = i * D + j
            negative = mix((place & MASK) + sign_key) >> 30
            return (place % K + negative * K).to(torch.int32 if 2 * K <= MASK else torch.int64)

        if torch.compiler.is_compiling():
            return chunk(row).view(-1)
        # On the meta device nothing is in a cache, and a huge W would be as many chunks.
        size = GPU_CHUNK if row.is_cuda else max(CHUNK, n * D // 64) if row.is_meta else CHUNK
        return torch.cat([chunk(rows) for rows in row.split(max(1, size // D))]).view(-1)


def mix(x: Integers) -> Integers:
    """Return 31 well mixed bits of each integer: three rounds of shift, exclusive or and multiplication modulo 2^31.

    No product reaches 2^63, so that the result is the same on every device.
    """
    x = x & MASK
    for multiplier in (0x7FEB352D, 0x46CA68B5):
        x = x ^ (x >> 16)
        x = (x * multiplier) & MASK
    return x ^ (x >> 15)


def key(seed: int, index: int) -> int:
    """Return 31 bits for the ``index``-th use of a seed, by the increments and the finalizer of SplitMix64."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return (z ^ z >> 31) & MASK
