"""What the Kronecker products share: the numbers of blocks, the product with rows, the norm of the cropped matrix.

W of shape (n, D) consists of p x q blocks of shape (s, t), s = ceil(n/p), t = ceil(D/q), and is cropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache, lru_cache
from math import isqrt
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrication import Fabrication, cropped, padded
from fusionkit.fusion import check_size

Sizes = NDArray[np.int64]
#: Views of at least this width are multiplied one by one where their widths are multiples of t.
WIDE = 256
#: How many numbers of blocks of a length are tried at most.
TRIED = 2048


class Layout(NamedTuple):
    """p x q blocks of shape (s, t), and the rank r of their factors (1 where there is none)."""

    p: int
    q: int
    s: int
    t: int
    r: int


def lower_count(p: int, size: int) -> int:
    """Return the greatest number of equal blocks up to p that leaves none empty: (p-1)*ceil(size/p) < size."""
    return -(-size // -(-size // p))


def upper_count(p: int, size: int) -> int:
    """Return the least such number from p on; p is at most ``size``."""
    return p if lower_count(p, size) == p else -(-size // (-(-size // p) - 1))


@cache
def counts(size: int) -> tuple[int, ...]:
    """Return, ascending, the valid numbers of equal blocks of a length; of a great length some, spread evenly."""
    if size > TRIED**2 // 4:  # There are about 2 sqrt(size).
        return tuple(sorted({lower_count(min(size, round(size ** (i / TRIED))), size) for i in range(TRIED + 1)}))
    found = [1]
    while found[-1] < size:
        found.append(upper_count(found[-1] + 1, size))
    return tuple(found)


def nearest_counts(p: int, sizes: Collection[int]) -> str:
    """Return the numbers next to p that all sizes admit, "10, or 5 below it"; "5, below it" if none is above."""
    least = min(sizes)
    # The square root is always admitted; the search would not end soon where the sizes are very great.
    below = _settled(p, sizes, lower_count, min) or isqrt(least)
    above = _settled(p, sizes, upper_count, max)
    return f"{below}, below it" if above is None else f"{above}, or {below} below it"


def _settled(
    p: int, sizes: Collection[int], step: Callable[[int, int], int], choose: Callable[[list[int]], int]
) -> int | None:
    """Repeat a step until no size changes p any more; None if p becomes too great, or after many steps."""
    for _ in range(10**5):
        if p > min(sizes):
            return None
        found = choose([step(p, size) for size in sizes])
        if found == p:
            return p
        p = found
    return None


def check_count(what: str, p: int, **sides: int) -> int:
    """Return p, or raise a ``FusionError`` that names the numbers of blocks next to it that all the sides admit."""
    least = min(sides.values())
    if p > least:
        limit = f"min({', '.join(sides)})" if len(sides) > 1 else next(iter(sides))
        raise FusionError(f"{what} should be from 1 to {limit} = {least}; found {p}.")
    if any(lower_count(p, size) < p for size in sides.values()):
        place = " and ".join(f"{side} = {size}" for side, size in sides.items())
        raise FusionError(
            f"{what} should leave none of its blocks without a place in {place}: the next valid value is "
            f"{nearest_counts(p, sides.values())}; found {p}."
        )
    return p


class BlockProduct(Fabrication):
    """Base of the Kronecker products, whose numbers of blocks p and q follow from the size where they are not given.

    A subclass writes ``measure``, and ``limit`` where its factors have a rank.  The pair chosen has, among those with l
    within 5 % of the least, the greatest rank, then the fewest multiply-adds, then the smallest p.
    """

    #: The option that limits the rank, and its value unless the size admits only less.
    rank_option: ClassVar[str | None] = None
    default_rank: ClassVar[int] = 8

    def __init__(self, p: int | None = None, q: int | None = None) -> None:
        super().__init__()
        self.p = None if p is None else check_size(f"p, the number of block rows of {self.label()},", p)
        self.q = None if q is None else check_size(f"q, the number of block columns of {self.label()},", q)

    @classmethod
    def label(cls) -> str:
        """Return the name of the fabrication in messages: that of its file."""
        return cls.__module__.rpartition(".")[2]

    @staticmethod
    def measure(n: int, D: int, p: int, q: Sizes, s: int, t: Sizes, r: int) -> tuple[Sizes, Sizes, Sizes]:
        """Return l, the rank of W, and the multiply-adds per row, for each of the q, t (arrays)."""
        raise NotImplementedError

    @staticmethod
    def limit(p: int, q: Sizes, s: int, t: Sizes) -> Sizes:
        """Return the greatest r, for each of the q, t (arrays)."""
        return np.ones_like(q)

    def layout(self, n: int, D: int) -> Layout:
        """Return the sizes of the blocks.

        Raises:
            FusionError: p, q or the rank are out of range for this n and D.
        """
        if n * D > 2**53:  # What is counted would not fit into int64.
            raise DimsError(f"W of {self.label()} should have at most 2**53 entries; found n = {n} and D = {D}.")
        if self.p is not None:
            check_count(f"p, the number of block rows of {self.label()},", self.p, n=n)
        if self.q is not None:
            check_count(f"q, the number of block columns of {self.label()},", self.q, D=D)
        rank = None if self.rank_option is None else getattr(self, self.rank_option)
        return _layout(type(self), n, D, self.p, self.q, rank)


@lru_cache(maxsize=4096)
def _layout(cls: type[BlockProduct], n: int, D: int, p: int | None, q: int | None, r: int | None) -> Layout:
    q_all = np.array(counts(D) if q is None else (q,), dtype=np.int64)
    t_all = -(-D // q_all)
    rows = [(count, -(-n // count)) for count in (counts(n) if p is None else (p,))]
    most = max(int(cls.limit(count, q_all, length, t_all).max()) for count, length in rows)
    if r is not None and r > most:
        fixed = "".join(f", {name} = {value}" for name, value in (("p", p), ("q", q)) if value is not None)
        raise FusionError(
            f"{cls.rank_option}, the rank of {cls.label()}, should be from 1 to {most} for n = {n}, D = {D}{fixed}; "
            f"found {r}."
        )
    r = min(cls.default_rank, most) if r is None else r
    # Only numbers that leave no block empty are tried.
    measured = []
    for count, length in rows:
        fits = cls.limit(count, q_all, length, t_all) >= r
        if fits.any():
            qs, ts = q_all[fits], t_all[fits]
            measured.append((count, length, qs, ts, *cls.measure(n, D, count, qs, length, ts, r)))
    least = min(int(l.min()) for *_, l, _, _ in measured)
    candidates = []
    for count, length, qs, ts, l, rank, macs in measured:
        near = np.flatnonzero(20 * l <= 21 * least)
        for i in near[np.lexsort((qs[near], macs[near], -rank[near]))][:1]:
            layout = Layout(count, int(qs[i]), length, int(ts[i]), r)
            candidates.append((-int(rank[i]), int(macs[i]), layout))
    return min(candidates)[-1]


def spread(x: Sequence[Tensor], q: int, t: int, M: Tensor | None = None, terms: int = 1) -> Tensor:
    """Cut the joined rows into q blocks of width t, multiply each by M (terms*c, t), and put the blocks outermost.

    Returns:
        (terms*q, m*c), or (q, m*t) without M.
    """
    pieces = _blocks(x, q, t)
    if M is not None:
        pieces = [F.linear(piece, M) for piece in pieces]
    pieces = [piece.unflatten(-1, (terms, -1)).permute(2, 1, 0, 3) for piece in pieces]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)).reshape(terms * q, -1)


def _blocks(x: Sequence[Tensor], q: int, t: int) -> list[Tensor]:
    """Return the blocks (m, q_i, t) of each view where they are wide multiples of t, else of the joined rows."""
    widths = [view.shape[-1] for view in x]
    if sum(widths) == q * t and all(width % t == 0 and width >= WIDE for width in widths):
        # The copy that changes the order also joins the views.
        return [view.reshape(-1, width // t, t) for view, width in zip(x, widths, strict=True)]
    return [padded(x, q * t).reshape(-1, q, t)]


def compressed(x: Sequence[Tensor], q: int, T: Tensor) -> Tensor:
    """Multiply the q blocks of every row by T (r, t) -> (r*m, q); nothing is put into another order.

    As the transpose, for which MKL is twice as fast with a small r.
    """
    r, t = T.shape
    pieces = [torch.mm(T, blocks.reshape(-1, t).T).view(r, *blocks.shape[:2]) for blocks in _blocks(x, q, t)]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)).view(-1, q)


def expanded(inner: Tensor, S: Tensor, n: int, like: Tensor) -> Tensor:
    """Multiply the r numbers of each of p blocks by S (s, r), (r*m, p) -> (m, p*s), and crop to (..., n)."""
    s, r = S.shape
    rows = torch.mm(inner.view(r, -1).T, S.T)
    return cropped(rows.view(-1, inner.shape[1] * s), n, like)


def gather(rows: Tensor, s: int, n: int, like: Tensor, M: Tensor | None = None) -> Tensor:
    """Multiply each block by M (s, c), put the blocks back into their rows, (p, m*c) -> (m, p*s), and crop to (..., n).

    Without M, c = s.
    """
    p = rows.shape[0]
    if M is not None and M.shape[1] > s:
        rows, M = F.linear(rows.view(-1, M.shape[1]), M).view(p, -1), None
    blocks = rows.view(p, -1, s if M is None else M.shape[1]).transpose(0, 1)
    if M is not None:
        # The narrower blocks are the cheaper ones to reorder.
        blocks = F.linear(blocks, M)
    return cropped(blocks.reshape(-1, p * s), n, like)


def cropped_sum(layout: Layout, n: int, D: int, term: Callable[[slice, slice, slice, slice], Tensor]) -> Tensor:
    """Return a sum over the entries of the cropped matrix that factors into blocks (p, q) and (s, t).

    It is taken apart into the blocks that are complete and those that are cropped, of the last block row and column:
    ``term`` gets, for each part, the rows of the left and of the right factor, then the columns of both.
    """
    parts = [
        term(left_rows, right_rows, left_columns, right_columns)
        for left_rows, right_rows in _parts(layout.p, layout.s, n)
        for left_columns, right_columns in _parts(layout.q, layout.t, D)
    ]
    return sum(parts[1:], parts[0])


def _parts(count: int, length: int, size: int) -> Sequence[tuple[slice, slice]]:
    if count * length == size:
        return [(slice(0, count), slice(0, length))]
    last = (slice(count - 1, count), slice(0, size - (count - 1) * length))
    return [(slice(0, count - 1), slice(0, length)), last] if count > 1 else [last]
