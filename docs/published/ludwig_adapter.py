"""Combiners of Ludwig."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from adapter import Published, stand_ins
from torch import Tensor, nn

import fusionkit
from fusionkit.errors import DimsError

with stand_ins("torchvision", "h5py", "huggingface_hub", "transformers"):
    from ludwig.combiners import combiners
    from ludwig.schema.combiners.comparator import ComparatorCombinerConfig
    from ludwig.schema.combiners.concat import ConcatCombinerConfig
    from ludwig.schema.combiners.project_aggregate import ProjectAggregateCombinerConfig
    from ludwig.schema.combiners.transformer import TransformerCombinerConfig


def features(dims: Sequence[int]) -> dict[str, SimpleNamespace]:
    """Return what a combiner asks of the input features: the shapes of the encoders' outputs."""
    return {f"view{i}": SimpleNamespace(output_shape=torch.Size([width])) for i, width in enumerate(dims)}


class _Combiner(Published):
    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the option ``output_size``."""
        return self.resolve_free_n(dims)

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the combiner as Ludwig does, with the outputs of the encoders by the names of the features."""
        return self.module({f"view{i}": {"encoder_output": view} for i, view in enumerate(x)})["combiner_output"]


class Concat(_Combiner):
    """`FC(concat(A_1, ..., A_k))`, one layer."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True)

    def make(self, dims: list[int]) -> nn.Module:
        """Return the combiner."""
        config = ConcatCombinerConfig(num_fc_layers=1, output_size=self.calculate_n(dims))
        return combiners.ConcatCombiner(features(dims), config)


class Transformer(_Combiner):
    """`FC(mean_i T(P_1 A_1, ..., P_k A_k)_i)`, one layer each, no dropout."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True)

    def make(self, dims: list[int]) -> nn.Module:
        """Return the combiner."""
        sizes = {"hidden_size": 4, "num_heads": 2, "transformer_output_size": 4, "num_layers": 1, "dropout": 0.0}
        config = TransformerCombinerConfig(num_fc_layers=1, output_size=self.calculate_n(dims), **sizes)
        return combiners.TransformerCombiner(features(dims), config)


class ProjectAggregate(_Combiner):
    """`FC(mean_i (P_i A_i + p_i))`, one layer with layer normalization."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True)

    def make(self, dims: list[int]) -> nn.Module:
        """Return the combiner."""
        config = ProjectAggregateCombinerConfig(
            projection_size=4, num_fc_layers=1, output_size=self.calculate_n(dims), residual=False
        )
        return combiners.ProjectAggregateCombiner(features(dims), config)


class Comparator(_Combiner):
    """`concat(e_1 . e_2, e_1 * e_2, |e_1 - e_2|, e_1 B e_2)`, e_i = FC(A_i) of width (n - 2) / 2; two views."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True)

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """Return keywords with one view for each of the two entities."""
        return [{"dims": [4, 3], "n": 8}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return n, which is even and at least 4."""
        n = self.resolve_free_n(dims)
        if n % 2 or n < 4 or len(self.resolve_dims(dims)) != 2:
            raise DimsError(f"the comparator should get two views and an even n from 4; found n = {n}.")
        return n

    def make(self, dims: list[int]) -> nn.Module:
        """Return the combiner."""
        config = ComparatorCombinerConfig(
            entity_1=["view0"], entity_2=["view1"], num_fc_layers=1, output_size=(self.calculate_n(dims) - 2) // 2
        )
        return combiners.ComparatorCombiner(features(dims), config)
