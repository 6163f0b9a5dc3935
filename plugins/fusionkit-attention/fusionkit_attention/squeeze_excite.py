"""All views, each coordinate weighed by a gate that sees all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Fusion, Traits
from fusionkit.fusion import FusionOptions, Layer, LayeredFusion, Layers, check_size, dense_projection
from torch import Tensor, nn


class SqueezeExcite(LayeredFusion):
    """`2 sigmoid(U s + c) * [x]` with `s = relu(W [x] + b)`, views (..., n_i) -> (..., D).

    `*` is elementwise, [x] joins all views, a is ``hidden``; W (a, D), b (a,), U (D, a), c (D,); l = 2 a D + a + D.
    The gates are near 1 at the start.  An absent view counts as zeros; a row without any gives 0.  With one view it is
    a squeeze and excitation of its entries.  `explain` returns `gates` (..., D), 0 where the view is absent, and
    `weights` (..., k), their means over each view's entries.
    Source: Joze et al., "MMTM: Multimodal Transfer Module for CNN Fusion", 2020, section 3, for views without spatial
    dimensions.

    Args:
        hidden: a; by default max(1, D // 2).
        parameter_fabrication: how W is made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(batch_independent=True, missing="neutral", order_in_k=2)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        hidden: int | None = None,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.hidden = None if hidden is None else check_size("hidden, the height of W,", hidden)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views and three."""
        return [{"dims": [4, 3], "hidden": 8}, {"dims": [3, 1, 2]}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the sum of the widths."""
        return sum(self.resolve_dims(dims))

    def height(self) -> int:
        """Return a."""
        return self.hidden or max(1, self.calculate_n() // 2)

    def layers(self) -> Layers:
        """Return W and U."""
        return {
            "squeeze": [Layer(self.height(), self.resolve_dims(), fabrication=self.parameter_fabrication)],
            "excite": [Layer(self.calculate_n(), self.height())],
        }

    def _weighed(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the output and the gates, both (..., D)."""
        squeeze, excite = self.group("squeeze")[0], self.group("excite")[0]
        joined = torch.cat(tuple(x), -1)
        gates = 2 * torch.sigmoid(excite([torch.relu(squeeze([joined] if squeeze.dense else x))]))
        return gates * joined, gates

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return self._weighed(x)[0]

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        out, gates = self._weighed(x)
        parts = list(gates.split(self.resolve_dims(), -1))
        if mask is not None:
            parts = [torch.where(mask[..., i : i + 1], part, 0.0) for i, part in enumerate(parts)]
        weights = torch.stack([part.mean(-1) for part in parts], -1)
        return {"output": out, "weights": weights, "gates": torch.cat(parts, -1)}

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views, whose matrices are dense and whose result has their entries only."""
        kept, dims = self.indices_to_fold(views), self.resolve_dims()
        squeeze = self.of_views(self.group("squeeze")[0], kept, "squeeze")
        U, c = (part.split(dims) for part in self.dense(self.group("excite")[0]) if part is not None)
        excite = dense_projection(torch.cat([U[i] for i in kept]), torch.cat([c[i] for i in kept]))
        parts = {"squeeze": nn.ModuleList([squeeze]), "excite": nn.ModuleList([excite])}
        return self.restricted(views, parts=parts, parameter_fabrication=None, hidden=self.height())
