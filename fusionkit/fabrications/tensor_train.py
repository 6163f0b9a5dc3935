"""A tensor-train matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from fusionkit.errors import FusionError
from fusionkit.fabrication import Fabrication, cropped, padded
from fusionkit.fabrications._options import limited
from fusionkit.fabrications._reference import dot, filled
from fusionkit.fusion import check_size
from fusionkit.kernels.matmul import linear
from fusionkit.kernels.planning import LARGE_W, Effort


class TensorTrain(Fabrication):
    """``W[(i_1..i_c), (j_1..j_c)] = G_1[i_1, j_1, :] G_2[:, i_2, j_2, :] ... G_c[:, i_c, j_c]``, cropped to (n, D).

    The last index runs fastest; n_1 * ... * n_c >= n and d_1 * ... * d_c >= D, nearly equal.
    Blocks G_1 (n_1, d_1, r), G_2 (r, n_2, d_2, r), ..., G_c (r, n_c, d_c).  Source: Novikov et al., "Tensorizing Neural
    Networks", 2015, equation 5.

    Args:
        r: the rank, up to the least of the products of n_i * d_i on either side of a bond; None means at most 8.
        cores: how many cores, from 2 to max(3, ceil(log2(max(n, D)))); None means 3.
    """

    def __init__(self, r: int | None = None, cores: int | None = None) -> None:
        super().__init__()
        self.r = None if r is None else check_size("r, the rank of tensor_train,", r)
        what = "cores, the number of cores of tensor_train,"
        self.cores = 3 if cores is None else check_size(what, cores, minimum=2)
        self.degree = self.cores

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default, a pair of cores and a longer train."""
        return [{}, {"r": 1, "cores": 2}]

    def factors(self, n: int, D: int) -> tuple[list[int], list[int]]:
        """Return n_1..n_c and d_1..d_c.

        Raises:
            FusionError: more cores than binary digits count the rows or the columns of W.
        """
        most = max(3, (max(n, D) - 1).bit_length())
        if self.cores > most:
            raise FusionError(
                "cores, the number of cores of tensor_train, should be from 2 to max(3, ceil(log2(max(n, D)))) = "
                f"{most} for n = {n} and D = {D}; found {self.cores}."
            )
        return _factors(n, self.cores), _factors(D, self.cores)

    def rank(self, n: int, D: int) -> int:
        """Return r, or the default for this size.

        Raises:
            FusionError: r is greater than a bond between two cores can use.
        """
        sizes = [a * b for a, b in zip(*self.factors(n, D), strict=True)]
        most = min(min(prod(sizes[:k]), prod(sizes[k:])) for k in range(1, len(sizes)))
        limit = "the greatest rank that every bond can use"
        return limited("r, the rank of tensor_train,", self.r, 8, limit, most, n, D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the cores."""
        r = self.rank(n, D)
        inner = [(r, a, b, r) for a, b in zip(*self.factors(n, D), strict=True)]
        inner[0], inner[-1] = inner[0][1:], inner[-1][:3]  # type: ignore[assignment]
        return {f"G_{k}": shape for k, shape in enumerate(inner, 1)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        heights, widths = self.factors(n, D)
        ranks = [1, *[self.rank(n, D)] * (len(widths) - 1), 1]
        todo, done, macs, copies = prod(widths), 1, 0, D + n
        for k in reversed(range(len(widths))):
            todo //= widths[k]
            read = todo * done * widths[k] * ranks[k + 1]
            macs += read * heights[k] * ranks[k]
            copies += 3 * read  # A copy with the width innermost, in short runs.
            done *= heights[k]
        return Effort(macs, copies, slabs=True)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        first, *rest = _cores(blocks)
        W = first.squeeze(0)  # (rows, columns, rank) of the leading cores
        for core in rest:
            # A product of matrices, which autocast knows, unlike a tensordot.
            grown = (W @ core.flatten(1)).view(*W.shape[:2], *core.shape[1:]).transpose(1, 2)
            W = grown.reshape(W.shape[0] * core.shape[1], W.shape[1] * core.shape[2], core.shape[3])
        return W.squeeze(2)[:n, :D]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        cores = _cores(self.split(w, n, D))

        def entry(i: int, j: int) -> float:
            state = [1.0]
            for core in reversed(cores):  # The last core has the fastest digits of i and j.
                (i, a), (j, b) = divmod(i, core.shape[1]), divmod(j, core.shape[2])
                state = [dot(row, state) for row in core[:, a, b]]
            return state[0]

        return filled(n, D, entry)

    def multiply_built(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        """Return concat(x) @ W.T from W, which is made in two slabs of rows if it is large.

        So it may be built for any number of rows: 0.14 of the time of the product without it at (4096; 4 x 512; 512).
        """
        D = sum(view.shape[-1] for view in x)
        if n * D < LARGE_W:
            return super().multiply_built(x, blocks, n)
        (name, first), *rest = blocks.items()
        products = []
        for part in first.split(-(-len(first) // 2)):  # Its rows are the slowest of W's.
            height = min(n, len(part) * prod(core.shape[1] for _, core in rest))
            products.append(linear(x, self._materialize({name: part, **dict(rest)}, height, D)))
            n -= height
        return torch.cat(products, -1)

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        cores = _cores(blocks)
        rows = padded(x, prod([core.shape[2] for core in cores]))
        m = rows.shape[0]
        # From the last core to the first: (m, d_1..d_k, n_c * n_(c-1).. n_(k+1), r).
        todo, done = rows.shape[1], 1
        state = rows
        for core in reversed(cores):
            s, height, width, r = core.shape
            todo //= width
            state = state.reshape(m * todo, width, done, r).transpose(1, 2).reshape(m * todo * done, width * r)
            state = state @ core.permute(2, 3, 1, 0).reshape(width * r, height * s)
            done *= height
        heights = [core.shape[1] for core in reversed(cores)]
        out = state.view(m, *heights).permute(0, *range(len(cores), 0, -1))
        return cropped(out.flatten(1), n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        # From the last core to the first: sums over the trailing indices of products of two such matrices, for all
        # trailing indices (False) or only those up to the ones of the last row or column of the cropped W (True).
        cores = _cores(blocks)
        one = cores[0].new_ones(1, 1)
        gram = {(a, b): one for a in (False, True) for b in (False, True)}
        row, column = n - 1, D - 1
        for core in reversed(cores):
            row, i = divmod(row, core.shape[1])
            column, j = divmod(column, core.shape[2])
            ranges = {(False, side): [(slice(None), False)] for side in "ij"} | {
                (True, side): [(slice(last), False), (slice(last, last + 1), True)]
                for side, last in (("i", i), ("j", j))
            }
            gram = {
                (a, b): sum(
                    (
                        _sandwich(core[:, rows, columns], gram[tight_row, tight_column])
                        for rows, tight_row in ranges[a, "i"]
                        for columns, tight_column in ranges[b, "j"]
                    ),
                    torch.zeros_like(one),
                )
                for a in (False, True)
                for b in (False, True)
            }
        return gram[True, True].squeeze()


def _factors(size: int, count: int) -> list[int]:
    """Return ``count`` nearly equal factors whose product is at least ``size``, without the first at most ``size``.

    So no entry of a core belongs to padding alone.
    """
    rest: list[int] = []
    for left in range(count, 1, -1):
        rest.append(max(1, round((size / prod(rest)) ** (1 / left))))
        while prod(rest) > size:
            rest[-1] -= 1
    return [-(-size // prod(rest)), *rest]


def _cores(blocks: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the cores with both ranks, (r, n_k, d_k, r); the outer ones are 1."""
    first, *inner, last = blocks.values()
    return [first.unsqueeze(0), *inner, last.unsqueeze(3)]


def _sandwich(core: Tensor, gram: Tensor) -> Tensor:
    """Return the sum over i and j of core[:, i, j, :] gram core[:, i, j, :].T, (r, n, d, s) and (s, s) -> (r, r)."""
    product: Tensor = torch.tensordot(torch.tensordot(core, gram, 1), core, ([1, 2, 3], [1, 2, 3]))
    return product
