"""One view, shifted by a bounded part of the others."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import Fusion, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_positive
from torch import Tensor, nn

from fusionkit_attention.main_view import MainViewFusion, check_main


class AdaptationGate(MainViewFusion):
    """`x_0 + min(beta norm(x_0) / norm(H), 1) H` with `H = sum_j g_j * (W_j x_j) + b_H`, (..., n_i) -> (..., n_0).

    `g_j = relu(G_j [x_0; x_j] + b_j)`; x_0 is the main view, j runs over the others; `*` is elementwise; the factor of
    H is 1 where H = 0.  G_j (n_0, n_0 + n_j), W_j (n_0, n_j), which start at 1/(k-1) of the usual mean square, b_j and
    b_H (n_0,); l = n_0 ((k-1)(n_0 + 1) + 2 (D - n_0) + 1).  An absent view counts as zeros; a row without any view, or
    without the main one, gives 0.  With one view, H = b_H.  `explain` returns `weights` (..., k), the mean entry of
    each g_j and 1 for the main view, and `scale` (...), the factor of H.
    Source: Rahman et al., "Integrating Multimodal Information in Large Pretrained Transformers", 2020, the Multimodal
    Adaptation Gate; without the layer normalization and dropout behind it.

    Args:
        main: index of the view x_0.
        beta: the norm of the shift is at most beta norm(x_0); above 0.
        parameter_fabrication: how the G_j and W_j are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    bias: Tensor

    traits = Traits(batch_independent=True, missing="neutral")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        main: int = 0,
        beta: float = 1.0,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.main = check_main(main, self.dims)
        self.beta = check_positive("beta", beta)
        self.parameter_fabrication = parameter_fabrication
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views and three, of which the second is the main one."""
        return [{"dims": [4, 3]}, {"dims": [3, 4, 2], "main": 1, "beta": 0.5}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the width of the main view."""
        widths = self.resolve_dims(dims)
        return widths[check_main(self.main, widths)]

    def layers(self) -> Layers:
        """Return the G_j and the W_j."""
        n, dims, made = self.calculate_n(), self.resolve_dims(), self.parameter_fabrication
        widths = [dims[j] for j in self.others()]
        return {
            "gates": [Layer(n, (n, width), fabrication=made) for width in widths],
            "inputs": [Layer(n, width, False, made) for width in widths],
        }

    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Return b_H."""
        return {"bias": (self.calculate_n(),)}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the matrices, the W_j so that the sum over the views is as large as with one; biases 0."""
        super().draw(generator)
        inputs = self.group("inputs")
        for project in inputs:
            project.reset_parameters(generator, gain=len(inputs) ** -0.5)

    def _shifted(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the output (..., n_0), the factor (..., 1), and the gates (..., n_0) of the other views."""
        main, others = x[self.main], [x[j] for j in self.others()]
        inner = [(gate, gate([main, view])) for gate, view in zip(self.group("gates"), others, strict=True)]
        # In place: nothing else uses the product of a dense matrix, and its backward does not need it.
        gates = [part.relu_() if gate.dense else part.relu() for gate, part in inner]
        # In half precision products of two large numbers overflow, although H is made short afterwards.
        wide = torch.promote_types(main.dtype, torch.float32)
        H = self.bias.to(wide).expand(main.shape)
        for gate, part in zip(gates, self.each("inputs", others), strict=True):
            H = torch.addcmul(H, gate.to(wide), part.to(wide))
        scaled = main.dtype.itemsize == 2
        most, size = self.beta * norm(main.to(wide), scaled=scaled), norm(H, scaled=scaled)
        # beta norm(x_0) / max(norm(H), beta norm(x_0)): divides by 0 only where both are 0.
        top = torch.maximum(size, most)
        zero = size == 0
        factor = torch.where(zero, 1.0, most / torch.where(zero, 1.0, top))
        return torch.addcmul(main.to(wide), factor, H).to(main.dtype), factor, gates

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return self._shifted(x)[0]

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        out, factor, gates = self._shifted(x)
        weights = [gate.mean(-1) for gate in gates]
        weights.insert(self.main, torch.ones_like(out[..., 0]))
        shown = torch.stack(weights, -1)
        shown = shown if mask is None else torch.where(mask, shown, 0.0)
        return {"output": out, "weights": shown, "scale": factor.squeeze(-1)}

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views, the main one among them."""
        kept, others = self.check_views(views), self.others()
        places = [others.index(j) for j in kept if j != self.main]
        parts = {
            name: nn.ModuleList(copy.deepcopy(self.group(name)[place]) for place in places)
            for name in ("gates", "inputs")
        }
        return self.restricted(views, parts=parts, main=kept.index(self.main))


def norm(x: Tensor, *, scaled: bool) -> Tensor:
    """Return the Euclidean norms (..., 1) of rows (..., n), whose gradient is 0 where x is 0.

    ``scaled``: without overflow of the squares.
    """
    if scaled:
        top = x.detach().abs().amax(-1, keepdim=True)
        top = torch.where(top == 0, 1.0, top)
        return top * norm(x / top, scaled=False)
    square = x.square().sum(-1, keepdim=True)
    zero = square == 0
    # The root of 0 has no derivative.
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())
