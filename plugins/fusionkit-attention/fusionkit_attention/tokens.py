"""What transformer and perceiver share: one token per view, and blocks of attention with a feed-forward network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fusionkit import FusionError
from fusionkit.fusion import Layer, LayeredFusion, Layers, check_size, masked_softmax
from torch import Tensor, nn


class TokenFusion(LayeredFusion):
    """Base class: tokens `t_i = P_i x_i + b_i` (..., k, width), pre-norm blocks of attention, and a projection.

    Every block has a query, key, value and output matrix (width, width), without key bias, which would cancel in the
    softmax, and a feed-forward network with GELU.  A subclass writes ``vectors`` with ``norm_weights`` and
    ``norm_biases`` (number of norms, width), and what it learns itself, which starts at N(0, 1).
    """

    norm_weights: Tensor
    norm_biases: Tensor

    per_view = ("inputs",)

    def keep_sizes(self, width: int, heads: int, depth: int, ff_width: int | None, least_depth: int) -> None:
        """Set attributes for these options.

        Raises:
            DimsError: one is no positive integer (depth: below its least).
            FusionError: ``heads`` does not divide ``width``.
        """
        self.width = check_size("width, the width of the tokens,", width)
        self.heads = check_size("heads, the number of attention heads,", heads)
        if self.width % self.heads:
            raise FusionError(f"width should be a multiple of heads = {self.heads}; found {self.width}.")
        self.depth = check_size("depth, the number of layers,", depth, minimum=least_depth)
        ff_width = 2 * self.width if ff_width is None else ff_width
        self.ff_width = check_size("ff_width, the inner width of the feed-forward networks,", ff_width)

    def token_layers(self, blocks: int, fabrication: Any) -> Layers:
        """Return the P_i and the matrices of the blocks."""
        d, f = self.width, self.ff_width
        return {
            "inputs": [Layer(d, width, fabrication=fabrication) for width in self.resolve_dims()],
            "queries": [Layer(d, d)] * blocks,
            "keys": [Layer(d, d, bias=False)] * blocks,
            "values": [Layer(d, d)] * blocks,
            "mixers": [Layer(d, d)] * blocks,
            "wide": [Layer(f, d)] * blocks,
            "narrow": [Layer(d, f)] * blocks,
        }

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the matrices, and the learned tokens from N(0, 1); the weights of the norms become 1, all biases 0."""
        super().draw(generator)
        nn.init.ones_(self.norm_weights)
        for name in self.vectors():
            if name not in ("norm_weights", "norm_biases"):
                nn.init.normal_(self.get_parameter(name), generator=generator)

    def norms(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight and bias of every layer norm."""
        return list(zip(self.norm_weights.unbind(), self.norm_biases.unbind(), strict=True))

    def attend(
        self, block: int, queries: Tensor, keys: Tensor, mask: Tensor | None, *, with_zero: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Let tokens attend to others.

        Args:
            block: number of the block.
            queries: (..., Q, width), normalized.
            keys: (..., T, width), normalized; also for the values.
            mask: of the keys, bool (..., T); None: all are present.
            with_zero: whether one more key and value, of zeros, takes part.

        Returns:
            The result (..., Q, width), and the weights of the T keys (..., heads, Q, T): 0 for absent ones.
        """
        e = self.width // self.heads
        q = (self.group("queries")[block]([queries]) * e**-0.5).unflatten(-1, (self.heads, e))
        k = self.group("keys")[block]([keys]).unflatten(-1, (self.heads, e))
        v = self.group("values")[block]([keys]).unflatten(-1, (self.heads, e))
        scores = q.transpose(-3, -2) @ k.movedim(-3, -1)
        present = None if mask is None else mask.unsqueeze(-2).unsqueeze(-3)
        if with_zero:
            present = None if present is None else F.pad(present, (0, 1), value=True)
            weights = masked_softmax(F.pad(scores, (0, 1)), present)[..., :-1]
        else:
            weights = masked_softmax(scores, present)
        mixed = (weights @ v.transpose(-3, -2)).transpose(-3, -2).flatten(-2)
        return self.group("mixers")[block]([mixed]), weights

    def feed(self, block: int, z: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        """Add the feed-forward network of the normalized tokens to them, (..., T, width)."""
        wide: Tensor = self.group("wide")[block]([normed(z, norm)])
        narrow: Tensor = self.group("narrow")[block]([F.gelu(wide)])
        return z + narrow


def normed(z: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    """Return the layer norm over the last dimension; torch sums up in float32, also in half precision."""
    return F.layer_norm(z, z.shape[-1:], *norm)
