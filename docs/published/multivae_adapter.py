"""The product of experts of multivae, as its model MVAE uses it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from adapter import Published, stand_ins
from torch import Tensor, nn

import fusionkit
from fusionkit.errors import DimsError

with stand_ins("torchvision", "nltk", "tqdm"):
    from multivae.models.base.base_utils import stable_poe


class ProductOfExperts(Published):
    """`stable_poe` of experts N(mu_i, exp(v_i)) and the prior N(0, 1), A_i = (mu_i, v_i), result (mu, v)."""

    traits = fusionkit.Traits(permutation_invariant=True, batch_independent=True, missing="skip")

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the common width, which is even."""
        n = self.resolve_equal_dims(dims)
        if n % 2:
            raise DimsError(f"a view should hold as many means as log-variances; found width {n}.")
        return n

    def make(self, dims: list[int]) -> nn.Module:
        """Return an empty module: the function has no parameters."""
        self.calculate_n(dims)
        return nn.Module()

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the function as ``MVAE.compute_mu_log_var_subset`` does; absent experts have an infinite variance."""
        mu, v = torch.stack(x).chunk(2, -1)
        if mask is not None:
            v = torch.where(mask.T.unsqueeze(-1), v, torch.inf)
        mu, v = stable_poe(torch.cat([mu, torch.zeros_like(mu[:1])]), torch.cat([v, torch.zeros_like(v[:1])]))
        return torch.cat([mu, v], -1)
