"""The rectangular identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._reference import filled
from fusionkit.fusion import Traits


class ConstantEye(Fabrication):
    """``W_ij = 1 if i == j else 0``; no parameters, l = 0.

    The output is the first n columns, zeros beyond the D-th.
    """

    traits = Traits(constant=True)
    never_builds_W = True

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return no blocks."""
        return {}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return torch.eye(n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        return filled(n, D, lambda i, j: float(i == j))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        pieces, missing = [], n
        for view in x:
            # Also where no column is taken: the view then gets the gradient zero, as from the product with W.
            pieces.append(view[..., :missing])
            missing -= pieces[-1].shape[-1]
        return torch.cat([*pieces, x[0].new_zeros(()).expand(*x[0].shape[:-1], missing)], -1)
