"""A low-rank matrix for every view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionkit.errors import DimsError, FusionError
from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._reference import product
from fusionkit.fabrications.lowrank_kronecker import product_norm
from fusionkit.fusion import check_size
from fusionkit.kernels.matmul import linear


class ViewLowRank(Fabrication):
    """``W = [A_1 B_1, ..., A_k B_k]``; blocks A_1 (n, r_1), B_1 (r_1, n_1), A_2, ..., l = sum of r_i*(n + n_i).

    The widths n_i of the views are those that ``prepare`` was given, as the operator's constructor does; without it
    there is one view of width D.  Every view's columns get the mean square 1/D.  Source: Liu et al., "Efficient
    Low-rank Multimodal Fusion with Modality-Specific Factors", 2018, for modality-specific factors of the weights.

    Args:
        r: the ranks, one number for all or a list of one per view, each from 1 to min(n, n_i); None means
            min(8, n, n_i).
    """

    degree = 2
    never_builds_W = True

    def __init__(self, r: int | Sequence[int] | None = None) -> None:
        super().__init__()
        self.r: int | tuple[int, ...] | None = None
        if isinstance(r, Sequence):
            self.r = tuple(check_size(f"r[{i}], the rank of view {i},", rank) for i, rank in enumerate(r))
        elif r is not None:
            self.r = check_size("r, the rank of view_lowrank,", r)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and a given rank."""
        return [{}, {"r": 1}]

    def widths(self, n: int, D: int) -> tuple[int, ...]:
        """Return the widths of the views; that of one where others are not known."""
        return self._sized.dims if self._sized is not None and sum(self._sized.dims) == D else (D,)

    def ranks(self, n: int, D: int) -> tuple[int, ...]:
        """Return the rank of each view.

        Raises:
            DimsError: another number of ranks than of views.
            FusionError: a rank is greater than min(n, n_i).
        """
        widths = self.widths(n, D)
        if self.r is None:
            return tuple(min(8, n, width) for width in widths)
        ranks = self.r if isinstance(self.r, tuple) else (self.r,) * len(widths)
        if len(ranks) != len(widths):
            raise DimsError(f"r should hold one rank per view, {len(widths)}; found {len(ranks)}.")
        for i, (rank, width) in enumerate(zip(ranks, widths, strict=True)):
            if rank > min(n, width):
                raise FusionError(
                    f"r, the rank of view_lowrank, should be from 1 to min(n, n_i) = {min(n, width)} for view {i}, "
                    f"with n = {n} and n_i = {width}; found {rank}."
                )
        return ranks

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return A_i and B_i of every view."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (rank, width) in enumerate(zip(self.ranks(n, D), self.widths(n, D), strict=True), start=1):
            shapes |= {f"A_{i}": (n, rank), f"B_{i}": (rank, width)}
        return shapes

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return torch.cat([A @ B for A, B in _pairs(blocks)], 1)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        return torch.cat([product(A, B) for A, B in _pairs(self.split(w, n, D))], 1)

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        pairs = _pairs(blocks)
        if len(pairs) == 1:
            ((A, B),) = pairs
            return F.linear(linear(x, B), A)
        inner = [F.linear(view, B) for view, (_, B) in zip(x, pairs, strict=True)]
        return linear(inner, torch.cat([A for A, _ in pairs], 1))

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return torch.stack([product_norm(A, B) for A, B in _pairs(blocks)]).sum()

    def init_(self, w: Tensor, n: int, D: int, generator: torch.Generator | None = None) -> None:
        """Fill ``w`` with Gaussian blocks, those of each view scaled so that its columns of W have mean square 1/D."""
        with torch.no_grad():
            draw = torch.empty(w.numel(), device=w.device, dtype=torch.promote_types(w.dtype, torch.float32))
            draw.normal_(generator=generator)
            for A, B in _pairs(self.split(draw, n, D)):
                scale = (n * B.shape[1] / (D * product_norm(A, B))).pow(0.25)
                A.mul_(scale)
                B.mul_(scale)
            w.copy_(draw.view(w.shape))


def _pairs(blocks: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    values = list(blocks.values())
    return list(zip(values[::2], values[1::2], strict=True))
