"""The ModelFuser of pytorch-widedeep, over components that return their input."""

from __future__ import annotations

from collections.abc import Sequence

from adapter import Published, stand_ins
from torch import Tensor, nn

import fusionkit

with stand_ins("torchvision", "gensim", "spacy", "transformers", "cv2", "tqdm", "torchmetrics"):
    from pytorch_widedeep.models import ModelFuser
    from pytorch_widedeep.models._base_wd_model_component import BaseWDModelComponent


class _View(BaseWDModelComponent):
    """A component that returns its input, of the given width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @property
    def output_dim(self) -> int:
        return self.width

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Fuser(Published):
    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the module with the views."""
        return self.module(x)


class Concatenate(_Fuser):
    """`concat(A_1, ..., A_k)`."""

    traits = fusionkit.Traits(linear=True, batch_independent=True)

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """Return keywords with views of different widths."""
        return [{"dims": [4, 3]}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the sum of the widths."""
        return sum(self.resolve_dims(dims))

    def make(self, dims: list[int]) -> nn.Module:
        """Return the module."""
        return ModelFuser(list(map(_View, dims)), fusion_method="concatenate")


class Mean(_Fuser):
    """`mean_i A_i`, after a projection to the least width where the widths differ."""

    traits = fusionkit.Traits(linear=True, batch_independent=True)

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """Return keywords with views of different widths, which the module projects."""
        return [{"dims": [4, 3]}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the least width."""
        return min(self.resolve_dims(dims))

    def make(self, dims: list[int]) -> nn.Module:
        """Return the module."""
        return ModelFuser(list(map(_View, dims)), fusion_method="mean", projection_method="min")


class Head(_Fuser):
    """`relu(W concat(A_1, ..., A_k) + b)`, (n, D) the shape of W."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True)

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the number of outputs of the head."""
        return self.resolve_free_n(dims)

    def make(self, dims: list[int]) -> nn.Module:
        """Return the module."""
        return ModelFuser(list(map(_View, dims)), fusion_method="head", head_hidden_dims=[self.calculate_n(dims)])
