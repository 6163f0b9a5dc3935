"""The outer product of all views, times a matrix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from fusionkit import Fusion, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_flag, dense_projection
from torch import Tensor, nn

from fusionkit_bilinear.base import MAX_BYTES, MultiplicativeFusion, rows
from fusionkit_bilinear.functions import contract


class TensorFusion(MultiplicativeFusion):
    """`W ([1; x_1] ⊗ ... ⊗ [1; x_k])`, plus b with ``bias``; views (..., n_i) -> (..., n).

    W (n, prod_i (n_i + 1)), the columns of the last view running fastest; l = n * prod_i (n_i + 1), plus n with
    ``bias``.  W is contracted view by view.  One view is a linear map with a bias.  Source: Zadeh et al., "Tensor
    Fusion Network for Multimodal Sentiment Analysis", 2017, section 4.2, and the layer after it; as one formula
    equations 1 and 2 of Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", 2018.

    Args:
        bias: a second constant term, b (n,); W has one already, the column of ones.
        parameter_fabrication: how W is made.
        max_bytes: the most that the parameters, and W, may take; None: no limit.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.

    Raises:
        FusionError: more than ``max_bytes``.
    """

    traits = Traits(batch_independent=True, free_n=True, missing="neutral", memory_factor=10, order_in_k=None)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        bias: bool = False,
        parameter_fabrication: Any = None,
        max_bytes: int | None = MAX_BYTES,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.bias = check_flag("bias", bias)
        self.parameter_fabrication = parameter_fabrication
        self.max_bytes = max_bytes
        if self.dims is not None:
            total = sum(self.dims) + len(self.dims)
            alternative = (
                f"take lowrank_tensor_fusion, whose l is about rank * {self.calculate_n() * total}, or narrower views"
            )
            self.check_bytes(max_bytes, alternative, W=self.calculate_n() * prod(width + 1 for width in self.dims))
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views, three with a bias, and a W of low rank."""
        return [
            {"dims": [4, 4], "n": 5},
            {"dims": [3, 2, 3], "n": 2, "bias": True},
            {"dims": [4, 3], "n": 4, "parameter_fabrication": {"name": "lowrank", "r": 2}},
        ]

    def layers(self) -> Layers:
        """Return W."""
        D = prod(width + 1 for width in self.resolve_dims())
        return {"core": [Layer(self.calculate_n(), D, self.bias, self.parameter_fabrication)]}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw W with mean square 1 over the number of its columns, which the outer product has as its power."""
        self.group("core")[0].reset_parameters(generator)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        (core,) = self.group("core")
        out = contract(core.matrix(x[0]), [F.pad(view, (1, 0), value=1.0) for view in rows(x)], core.bias)
        return out.view(*x[0].shape[:-1], out.shape[-1])

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views: its W is dense, the columns with the ones of the other views."""
        kept, dims = self.indices_to_fold(views), self.resolve_dims()
        W, bias = self.dense(self.group("core")[0])
        W = W.view(-1, *(width + 1 for width in dims))
        for i in reversed(range(len(dims))):
            W = W if i in kept else W.select(i + 1, 0)
        W = W.permute(0, *(1 + sorted(kept).index(i) for i in kept)).flatten(1)
        core = nn.ModuleList([dense_projection(W, bias)])
        return self.restricted(views, parts={"core": core}, parameter_fabrication=None)
