"""A matrix with one entry per column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import fusionkit
import torch
import torch.nn.functional as F
from torch import Tensor


class FoldedDiagonal(fusionkit.Fabrication):
    """`W_ij = d[j] if i = j mod n else 0`; block d (D,), l = D.

    Every entry of the views is weighted once, and every n-th of the products is added up.
    """

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the parameter blocks in the order of w; l is the sum of their sizes."""
        return {"d": (D,)}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        # The definition, shape (n, D).
        d = blocks["d"]
        rows = torch.arange(n, device=d.device).unsqueeze(1)
        return torch.where(rows == torch.arange(D, device=d.device) % n, d, 0)

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        # concat(x) @ W.T without W; that both agree, in values and gradients, is one of the checks.
        weighted = torch.cat(tuple(x), -1) * blocks["d"]
        return F.pad(weighted, (0, -weighted.shape[-1] % n)).unflatten(-1, (-1, n)).sum(-2)
