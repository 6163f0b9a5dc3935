"""Two block-diagonal factors with a permutation between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isqrt
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import BoolTensor, Tensor

from fusionkit.fabrication import Fabrication, cropped, padded
from fusionkit.fabrications._kronecker import check_count
from fusionkit.fabrications._reference import filled
from fusionkit.fusion import check_size
from fusionkit.kernels.planning import COPY, Effort


class Monarch(Fabrication):
    """``W = blockdiag(L) P blockdiag(R)``, cropped to (n, D); blocks R (nb, c, ib) and L (nb, ob, c).

    blockdiag puts the nb blocks of L or R on a diagonal.  ib = ceil(D/nb), ob = ceil(n/nb), c = min(ib, ob), l =
    nb*c*(ib + ob).  P is the stride permutation: input t of block b of L is entry t*nb + b of blockdiag(R) x.  Source:
    Dao et al., "Monarch", 2022, definition 3.1, without the permutation of the outputs.

    Args:
        nb: number of blocks, such that none is all padding; None means floor(sqrt(min(n, D))), the most with which
            every output depends on every input.
    """

    degree = 2

    def __init__(self, nb: int | None = None) -> None:
        super().__init__()
        self.nb = None if nb is None else check_size("nb, the number of blocks of monarch,", nb)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and two blocks."""
        return [{}, {"nb": 2}]

    def block_count(self, n: int, D: int) -> int:
        """Return nb, or the default for this size.

        Raises:
            FusionError: with nb blocks one would be all padding; the message names the next valid numbers.
        """
        if self.nb is None:
            return isqrt(min(n, D))  # Always valid: (nb - 1)**2 < n is enough.
        return check_count("nb, the number of blocks of monarch,", self.nb, n=n, D=D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the blocks of the right and of the left factor."""
        nb = self.block_count(n, D)
        ib, ob = -(-D // nb), -(-n // nb)
        c = min(ib, ob)
        return {"R": (nb, c, ib), "L": (nb, ob, c)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        (nb, c, ib), (_, ob, _) = self.checked_shapes(n, D).values()
        return Effort(nb * c * (ib + ob), D + nb * c + 2 * n)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        R, L = blocks["R"], blocks["L"]
        nb, c, ib = R.shape
        right = [F.pad(block, (k * ib, (nb - 1 - k) * ib)) for k, block in enumerate(R.unbind())]  # (c, nb*ib) each
        inputs = torch.stack(right).view(c, nb, nb * ib).transpose(0, 1)
        return torch.bmm(L, inputs).view(-1, nb * ib)[:n, :D]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        R, L = self.split(w, n, D).values()
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

        return filled(n, D, entry)

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        R, L = blocks["R"], blocks["L"]
        nb, c, ib = R.shape
        h = torch.bmm(padded(x, nb * ib).view(-1, nb, ib).transpose(0, 1), R.mT).transpose(0, 1)  # (m, nb, c)
        if n * nb * c <= COPY * (nb * c + n):
            # blockdiag(L) P as a whole: multiplying by its zeros is cheaper than putting the rows in order twice.
            left = torch.diag_embed(L.permute(1, 2, 0)).permute(2, 0, 1, 3).reshape(-1, c * nb)
            return F.linear(h.flatten(1), left[:n]).view(*x[0].shape[:-1], n)
        # In this order the product reads every block without copying it again.
        h = h.reshape(-1, c, nb).transpose(1, 2).contiguous()
        out = torch.bmm(h.transpose(0, 1), L.mT).transpose(0, 1)  # (m, nb, ob)
        return cropped(out.flatten(1), n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        R, L = blocks["R"], blocks["L"]
        nb, c = R.shape[:2]
        live = {name: ~mask.to(R.device) for name, mask in self.padding(n, D).items()}
        R, L = (block * live[name] if name in live else block for name, block in (("R", R), ("L", L)))
        # ||W||^2 is the sum over the blocks of L of trace(L^T L G), G the Gram matrix of the rows of R that they read:
        # rows of different blocks of R are orthogonal.
        source = torch.arange(c * nb, device=R.device).view(c, nb).T
        k, q = source // c, source % c
        gram = (R @ R.mT)[k[:, :, None], q[:, :, None], q[:, None, :]] * (k[:, :, None] == k[:, None, :])
        return ((L.mT @ L) * gram).sum()

    def padding(self, n: int, D: int) -> dict[str, BoolTensor]:
        """Return the last columns of R and the last rows of L, where nb divides D or n with a remainder."""
        (nb, c, ib), (_, ob, _) = self.shapes(n, D).values()
        R = (torch.arange(nb * ib).view(nb, 1, ib) >= D).expand(nb, c, ib)
        L = (torch.arange(nb * ob).view(nb, ob, 1) >= n).expand(nb, ob, c)
        return {name: cast(BoolTensor, mask) for name, mask in (("R", R), ("L", L)) if bool(mask.any())}
