"""The Perceiver of perceiver-pytorch, which reads the views as a sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from adapter import Published
from perceiver_pytorch import Perceiver as Module
from torch import Tensor, nn

import fusionkit


class Perceiver(Published):
    """`perceiver(views)`, views of one width as a sequence of k tokens; n classes."""

    # The bound of the memory is fusionkit's own, and lifted: the module is wider inside than its views.
    traits = fusionkit.Traits(
        permutation_invariant=True, batch_independent=True, free_n=True, missing="skip", memory_factor=1000
    )
    #: A module that reads absent views would show it.
    fill = 7.0

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the number of classes."""
        self.resolve_equal_dims(dims)
        return self.resolve_free_n(dims)

    def make(self, dims: list[int]) -> nn.Module:
        """Return a small Perceiver without Fourier features, as the views have no positions."""
        return Module(
            num_freq_bands=0,
            max_freq=1.0,
            depth=1,
            input_channels=dims[0],
            input_axis=1,
            num_latents=3,
            latent_dim=4,
            latent_heads=2,
            cross_dim_head=4,
            latent_dim_head=4,
            num_classes=self.calculate_n(dims),
            fourier_encode_data=False,
        )

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the module with the sequence and its mask."""
        return self.module(torch.stack(x, 1), mask=mask)
