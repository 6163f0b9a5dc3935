"""The fusion modules of iMML (``imml.fuse``)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adapter import Published, stand_ins
from torch import Tensor, nn

import fusionkit

with stand_ins("torchvision", "lightning", "transformers"):
    from imml import fuse


class _SameWidth(Published):
    """Views of one width n, a list of which the module takes."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the common width."""
        return self.resolve_equal_dims(dims)

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the module with the views."""
        return self.module(x)


class Mean(_SameWidth):
    """`nanmean_i A_i`."""

    traits = fusionkit.Traits(
        permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True, missing="skip"
    )
    #: The module leaves NaN out.
    fill = math.nan

    def make(self, dims: list[int]) -> nn.Module:
        """Return the module."""
        self.calculate_n(dims)
        return fuse.MeanFusion()


class Sum(_SameWidth):
    """`nansum_i A_i`."""

    traits = fusionkit.Traits(permutation_invariant=True, batch_independent=True, monotone=True, missing="skip")
    #: The module leaves NaN out.
    fill = math.nan

    def make(self, dims: list[int]) -> nn.Module:
        """Return the module."""
        self.calculate_n(dims)
        return fuse.SumFusion()


class Max(_SameWidth):
    """`max_i A_i`."""

    traits = fusionkit.Traits(
        permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True
    )

    def make(self, dims: list[int]) -> nn.Module:
        """Return the module."""
        self.calculate_n(dims)
        return fuse.MaxFusion()


class Attention(_SameWidth):
    """`sum_i V A_i * softmax_i(tanh(V A_i))`."""

    traits = fusionkit.Traits(permutation_invariant=True, batch_independent=True)

    def make(self, dims: list[int]) -> nn.Module:
        """Return the module."""
        return fuse.AttentionFusion(self.calculate_n(dims))


class EmbraceNet(_SameWidth):
    """`A_i[j]`, with i drawn for every row and every column j from the views whose row is not zero."""

    # Zeros stand for what is absent.
    traits = fusionkit.Traits(
        permutation_invariant=True, batch_independent=True, stochastic=True, convex=True, missing="skip"
    )

    def make(self, dims: list[int]) -> nn.Module:
        """Return the module."""
        self.calculate_n(dims)
        return fuse.EmbraceNet()
