"""One view, scaled and shifted by the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Fusion, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, dense_projection
from torch import Tensor, nn

from fusionkit_attention.main_view import MainViewFusion, check_main


class Film(MainViewFusion):
    """`(1 + g) * (W x_main) + b` with `[g; b] = G [x_j, j != main] + g0`, views (..., n_i) -> (..., n).

    `*` is elementwise.  x_main is the main view; [x_j, j != main] joins the others.  W (n, n_main); G (2n, D - n_main),
    which starts at a quarter of the usual mean square; g0 (2n,), which starts at 0; l = n (2D - n_main + 2).  An absent
    view counts as zeros; a row without any gives the b of g0.  With one view, g and b are g0.  `explain` returns
    `gates` (..., n), 1 + g.
    Source: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", 2018, equations 1 and 2; 1 + g as
    in the authors' code.

    Args:
        main: index of the view that the others change.
        parameter_fabrication: how W and G are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    g0: Tensor

    traits = Traits(batch_independent=True, free_n=True, missing="neutral")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        main: int = 0,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.main = check_main(main, self.dims)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views and three, of which the second is the main one."""
        return [{"dims": [4, 3], "n": 5}, {"dims": [3, 2, 4], "n": 3, "main": 1}]

    def layers(self) -> Layers:
        """Return W, and G where there is another view."""
        n, dims, made = self.calculate_n(), self.resolve_dims(), self.parameter_fabrication
        others = tuple(dims[i] for i in self.others())
        return {
            "inputs": [Layer(n, dims[self.main], False, made)],
            "changes": [Layer(2 * n, others, False, made)] if others else [],
        }

    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Return g0."""
        return {"g0": (2 * self.calculate_n(),)}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the matrices, G at half the usual size; g0 = 0."""
        super().draw(generator)
        for change in self.group("changes"):
            change.reset_parameters(generator, gain=0.5)

    def _changed(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the output and g, both (..., n)."""
        main = self.group("inputs")[0]([x[self.main]])
        g, b = self.g0.to(main.dtype).chunk(2)
        for change in self.group("changes"):
            g, b = (change([x[i] for i in self.others()]) + self.g0).chunk(2, -1)
        return torch.addcmul(main + b, g, main), g

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return self._changed(x)[0]

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        out, g = self._changed(x)
        return {"output": out, "gates": (1 + g).expand(out.shape)}

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views, the main one among them, whose matrices are dense."""
        kept, places = self.indices_to_fold(views), self.others()
        others = [places.index(i) for i in kept if i != self.main]
        changes = self.group("changes") if others else []
        parts = {
            "inputs": nn.ModuleList(dense_projection(*self.dense(project)) for project in self.group("inputs")),
            "changes": nn.ModuleList(self.of_views(change, others, "changes") for change in changes),
        }
        return self.restricted(views, parts=parts, parameter_fabrication=None, main=kept.index(self.main))
