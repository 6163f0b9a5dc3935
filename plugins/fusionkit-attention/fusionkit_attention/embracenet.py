"""Every coordinate of one view, drawn while training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from fusionkit import Traits
from fusionkit.fusion import FusionOptions, Layer, LayeredFusion, Layers, present_count
from torch import Tensor


class EmbraceNet(LayeredFusion):
    """`y = mean_i h_i`, `h_i = relu(P_i x_i + b_i)`; in training each coordinate of y is that of one h_i, drawn evenly.

    Views (..., n_i) -> (..., n), with P_i (n, n_i) at mean square 2/n_i and b_i (n,); l = n*(D + k).  Mean and draw are
    over the present views; a row without any gives 0.  The draw takes numbers from torch's generator, as dropout does;
    with one view there is none.

    explain: `weights` (..., k), which sum to one: 1 / number of present views, or in training the share of coordinates
    drawn from the view.

    Source: Choi and Lee, "EmbraceNet: A robust deep learning architecture for multimodal classification", 2019, section
    3, with equal probabilities; evaluation takes the expectation of the draw.

    Args:
        parameter_fabrication: how the P_i are made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    per_view = ("inputs",)
    traits = Traits(
        batch_independent=True,
        free_n=True,
        init_gain=(0.05, 2.0),
        missing="skip",
        stochastic=True,
        train_eval_differ=True,
    )

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.parameter_fabrication = parameter_fabrication
        if self.dims is not None and len(self.dims) == 1:
            self.declare_traits(stochastic=False, train_eval_differ=False)
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two views and three."""
        return [{"dims": [4, 4], "n": 8}, {"dims": [3, 1, 4], "n": 6}]

    def layers(self) -> Layers:
        """Return the P_i."""
        n, made = self.calculate_n(), self.parameter_fabrication
        return {"inputs": [Layer(n, width, fabrication=made) for width in self.resolve_dims()]}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the P_i so that the h_i have the power of the views, and set the b_i to 0."""
        for project in self.group("inputs"):
            project.reset_parameters(generator, gain=2**0.5)

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._embraced(x, mask)[0]

    _fuse_masked = _fuse

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        output, chosen = self._embraced(x, mask)
        present = output.new_ones(*output.shape[:-1], len(x)) if mask is None else mask.to(output.dtype)
        if chosen is None:
            return {"output": output, "weights": present / present.sum(-1, keepdim=True).clamp(min=1)}
        taken = chosen.unsqueeze(-1) == torch.arange(len(x), device=chosen.device)
        return {"output": output, "weights": taken.to(output.dtype).mean(-2) * present}

    def _embraced(self, x: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return y (..., n), and in training the view of every coordinate, int (..., n)."""
        h = self.each("inputs", x)
        if self.training and len(h) > 1:
            chosen = _drawn(h, mask)
            y = F.relu(torch.stack(h).gather(0, chosen.unsqueeze(0)).squeeze(0))
            return y if mask is None else torch.where(mask.any(-1, keepdim=True), y, 0.0), chosen
        units = [F.relu(view) for view in h]
        if mask is not None:
            units = [torch.where(column, unit, 0.0) for column, unit in zip(mask.split(1, -1), units, strict=True)]
        total = reduce(torch.add, units)
        return total / (len(h) if mask is None else present_count(mask, total.dtype)), None


def _drawn(h: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Return a present view for every coordinate, each as likely, int (..., n); any view where none is present."""
    shape, device = h[0].shape, h[0].device
    if mask is None:
        return torch.randint(len(h), shape, device=device)
    # In half precision the draw would not be even.
    uniform = torch.rand(shape, device=device, dtype=torch.float32)
    present_first = mask.int().argsort(dim=-1, descending=True, stable=True)
    return present_first.gather(-1, (uniform * present_count(mask)).long())
