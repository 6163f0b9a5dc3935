"""Models of fusilli for two or three tables."""

from __future__ import annotations

from collections.abc import Sequence

from adapter import Published, stand_ins
from torch import Tensor, nn

import fusionkit
from fusionkit.errors import DimsError

with stand_ins("lightning", "torchmetrics"):
    from fusilli.fusionmodels.tabularfusion.activation import ActivationFusion
    from fusilli.fusionmodels.tabularfusion.attention_and_activation import AttentionAndSelfActivation
    from fusilli.fusionmodels.tabularfusion.crossmodal_att import TabularCrossmodalMultiheadAttention


class _Tables(Published):
    """Two or three views; n classes."""

    model: type[nn.Module]

    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        """Return keywords with two views, and with three."""
        return [{"dims": [4, 3], "n": 2}, {"dims": [4, 3, 5], "n": 2}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the number of classes."""
        if len(self.resolve_dims(dims)) not in (2, 3):
            raise DimsError(f"fusilli should get two or three views; found {len(self.resolve_dims(dims))}.")
        return self.resolve_free_n(dims)

    def make(self, dims: list[int]) -> nn.Module:
        """Return the model for a classification, with its layers made narrow by the documented way to modify them."""
        n = self.calculate_n(dims)
        sizes = {f"mod{i + 1}_dim": dims[i] if i < len(dims) else None for i in range(3)} | {"img_dim": None}
        model = self.model("multiclass", sizes, n)
        for i, width in enumerate(dims):
            setattr(
                model, f"mod{i + 1}_layers", nn.ModuleDict({"layer 1": nn.Sequential(nn.Linear(width, 6), nn.ReLU())})
            )
        if hasattr(model, "fused_layers"):
            model.fused_layers = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Dropout(0.15))
        else:
            model.attention_embed_dim = 4
        model.calc_fused_layers()
        return model

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the model with the tables."""
        return self.module(*x)


class CrossmodalAttention(_Tables):
    """`W concat_{i != j}(attention(a_i, a_j))` of `a_i = attention(e_i, e_i)`, e_i the embedded views."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True)
    model = TabularCrossmodalMultiheadAttention


class Activation(_Tables):
    """`W F(concat(sigmoid(tanh(prod_i e_i)), e_1))`, e_i the embedded views, F with dropout."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True, stochastic=True, train_eval_differ=True)
    model = ActivationFusion


class SelfActivation(_Tables):
    """`W F(concat(sigmoid(tanh(prod_i e_i)), e_1))`, e_i the embedded views, the second after channel attention."""

    traits = fusionkit.Traits(batch_independent=True, free_n=True, stochastic=True, train_eval_differ=True)
    model = AttentionAndSelfActivation
