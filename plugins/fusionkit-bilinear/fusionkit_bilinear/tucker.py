"""A full core tensor between projections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack, cast

import torch
from fusionkit import Fusion, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_flag, dense_projection
from torch import Tensor, nn

from fusionkit_bilinear.base import MAX_BYTES, MultiplicativeFusion, rows
from fusionkit_bilinear.functions import contract, greatest_base, leveled, power_normalized, without_views

#: mm_dim by default for one or two views, as in the code's VQA experiment.
MM_DIM = 235


class Tucker(MultiplicativeFusion):
    """`P_o (T (y_1 ⊗ ... ⊗ y_k) + c) + b_o`, `y_i = P_i x_i + b_i`; views (..., n_i) -> (..., n).

    P_i (mm_dim, n_i), T (mm_dim, mm_dim^k) with the columns of y_k running fastest, P_o (n, mm_dim); c, b_i and b_o
    are biases; l = sum_i (n_i + 1)*mm_dim + mm_dim^(k+1) + mm_dim + (mm_dim + 1)*n.  With one view, a linear map.
    Source: Ben-younes et al., "MUTAN: Multimodal Tucker Fusion for Visual Question Answering", 2017, sections 3.1 (the
    decomposition) and 3.2 (`z`, the core on two projections).

    Args:
        mm_dim: width of the y_i and of the core's result; None: 235 up to k = 2, beyond the greatest with
            mm_dim^(k+1) <= 235^3, 60 for k = 3 and 10 for k = 6.
        normalize: power and l2 normalization of the core's result.
        dropout_input, dropout_pre_lin, dropout_output: dropout rates of the y_i, the core's result, and the output.
        parameter_fabrication: how the P_i are made.
        core_fabrication: how T is made.
        max_bytes: the most that the parameters, and T, may take; None: no limit.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.

    Raises:
        FusionError: more than ``max_bytes``.
    """

    per_view = ("inputs",)
    traits = Traits(batch_independent=True, free_n=True, missing="neutral", order_in_k=None)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        mm_dim: int | None = None,
        normalize: bool = False,
        dropout_input: float = 0.0,
        dropout_pre_lin: float = 0.0,
        dropout_output: float = 0.0,
        parameter_fabrication: Any = None,
        core_fabrication: Any = None,
        max_bytes: int | None = MAX_BYTES,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.mm_dim = self.core_width(mm_dim, self.default_mm_dim)
        self.normalize = check_flag("normalize", normalize)
        self.keep_rates(dropout_input=dropout_input, dropout_pre_lin=dropout_pre_lin, dropout_output=dropout_output)
        self.parameter_fabrication = parameter_fabrication
        self.core_fabrication = core_fabrication
        self.max_bytes = max_bytes
        if self.dims is not None:
            alternative = "take a smaller mm_dim, or block_tucker, block or mutan, whose cores have structure"
            self.check_bytes(max_bytes, alternative, core=self.mm_dim ** (len(self.dims) + 1))
        self.create()

    @staticmethod
    def default_mm_dim(k: int) -> int:
        """Return the width for k views."""
        return MM_DIM if k <= 2 else greatest_base(MM_DIM**3, k + 1)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views, three normalized ones, and a core of low rank."""
        return [
            {"dims": [4, 4], "n": 5, "mm_dim": 3},
            {"dims": [3, 4, 3], "n": 4, "mm_dim": 2, "normalize": True},
            {"dims": [4, 5], "n": 3, "mm_dim": 3, "core_fabrication": {"name": "lowrank", "r": 2}},
        ]

    def layers(self) -> Layers:
        """Return P_i, T and P_o."""
        mm_dim, dims = self.mm_dim, self.resolve_dims()
        return {
            "inputs": [Layer(mm_dim, width, fabrication=self.parameter_fabrication) for width in dims],
            "core": [Layer(mm_dim, mm_dim ** len(dims), fabrication=self.core_fabrication)],
            "output": [Layer(self.calculate_n(), mm_dim)],
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the output has about the power of the views."""
        inputs = self.group("inputs")
        self.draw_factors(inputs, len(inputs), generator, None)
        self.group("core")[0].reset_parameters(generator)
        self.group("output")[0].reset_parameters(generator, gain=self.mm_dim**0.5 if self.normalize else 1.0)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        projected = (project([view]) for project, view in zip(self.group("inputs"), x, strict=True))
        inner = rows([self.drop(view, self.dropout_input) for view in projected])
        (core,) = self.group("core")
        share: Tensor | float = 1.0
        if self.normalize:
            inner, share = leveled(inner, rows(x))
        z = contract(core.matrix(x[0]), inner, cast("Tensor", core.bias) * share)
        z = z.view(*x[0].shape[:-1], self.mm_dim)
        if self.normalize:
            z = power_normalized(z).to(x[0].dtype)
        z = self.drop(z, self.dropout_pre_lin)
        return self.drop(self.group("output")[0]([z]), self.dropout_output)

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views: its T is dense, contracted with the b_i of the other views."""
        kept = self.indices_to_fold(views)
        T, c = self.dense(self.group("core")[0])
        biases = [cast("Tensor", project.bias).detach() for project in self.group("inputs")]
        core = nn.ModuleList([dense_projection(without_views(T, biases, kept), c)])
        # The width of this operator, not the one by default for fewer views.
        return self.restricted(views, parts={"core": core}, core_fabrication=None, mm_dim=self.mm_dim)
