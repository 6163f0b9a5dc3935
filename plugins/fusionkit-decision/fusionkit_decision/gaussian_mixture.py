"""The moments of a mixture of Gaussian experts, or of the products of all their subsets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from fusionkit import DimsError
from fusionkit.fusion import FusionOptions, Traits, check_flag
from torch import Tensor

from fusionkit_decision.base import GaussianFusion, added, exponentials, greatest, weighted_sum, wide

#: The most views of which all subsets are taken: 1023.
MOST_VIEWS = 10


class GaussianMixture(GaussianFusion):
    """`mu = mean mu_i`, `lv = log mean(exp(lv_i) + (mu_i - mu)²)` of experts [mu_i; lv_i], (..., 2d) each -> (..., 2d).

    Mean and variance of the mixture in which all experts `N(mu_i, exp(lv_i))` have the same weight.  Nothing is drawn,
    and a row depends on no other.  l = 0.  One view is returned.  A row without any view gives 0.  Source: Shi et al.,
    "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models", 2019, section 3; subsets:
    Sutter et al., "Generalized Multimodal ELBO", 2021, definition 1.

    Args:
        subsets: the experts are the products (see ``gaussian_product``) of all 2^k - 1 non-empty subsets of the views
            that are present; for at most 10 views.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.

    Raises:
        DimsError: more than 10 views with ``subsets``.
    """

    traits = Traits(permutation_invariant=True, batch_independent=True, missing="skip")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        subsets: bool = False,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.subsets = check_flag("subsets", subsets)
        self.declare_traits(**({"order_in_k": None} if self.subsets else {"idempotent": True}))
        if self.subsets and self.dims is not None:
            k = len(self.dims)
            self.declare_traits(memory_factor=8 * 2**k / (k + 1))

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the mixture of the views, and that of their products."""
        return [{"dims": [4, 4, 4]}, {"dims": [6, 6, 6], "subsets": True}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return 2d; too many views for all subsets are a ``DimsError``."""
        k = len(self.resolve_dims(dims))
        if self.subsets and k > MOST_VIEWS:
            should = f"get at most {MOST_VIEWS} views with subsets=True, which makes 2^k - 1 experts"
            raise DimsError(f"{self.name} should {should}; found {k}: take subsets=False.")
        return super().calculate_n(dims)

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        if len(x) == 1:
            return x[0].clone()
        halves = [view.chunk(2, -1) for view in wide(x)]
        mus, lvs = [mu for mu, _ in halves], [lv for _, lv in halves]
        columns = None if mask is None else list(mask.split(1, -1))
        if self.subsets:
            mus, lvs, columns = _products(mus, lvs, columns)
        out = torch.cat(_moments(mus, lvs, columns, self.subsets), -1)
        if mask is not None:
            out = torch.where(mask.any(-1, keepdim=True), out, 0.0)
        return out.to(x[0].dtype)

    _fuse_masked = _fuse


def _products(
    mus: Sequence[Tensor], lvs: Sequence[Tensor], columns: Sequence[Tensor] | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
    """Return the experts of all subsets, in k tensors: (2^i, ..., d) of those whose last view is i, from 0.

    Args:
        mus: of the views, (..., d) each.
        lvs: of the views.
        columns: of the mask, (..., 1) each; of a subset: whether all its views are present.
    """
    means, logs = [mus[0][None]], [-lvs[0][None]]
    present = None if columns is None else [columns[0][None]]
    for i in range(1, len(mus)):
        mean, log = torch.cat(means), torch.cat(logs)
        joint = torch.logaddexp(log, -lvs[i])
        gate = torch.exp(-lvs[i] - joint)
        means.append(torch.cat([mus[i][None], mean + gate * (mus[i] - mean)]))
        logs.append(torch.cat([-lvs[i][None], joint]))
        if present is not None and columns is not None:
            present.append(torch.cat([columns[i][None], torch.cat(present) & columns[i]]))
    return means, [-log for log in logs], present


def _moments(
    mus: Sequence[Tensor], lvs: Sequence[Tensor], columns: Sequence[Tensor] | None, subsets: bool
) -> list[Tensor]:
    """Return mu and lv (..., d) of the experts in several tensors, (..., d) each or, of subsets, (g, ..., d).

    exp(lv) is the mean of the exp(lv_i) plus that of the (mu_i - mu)², whose sum is V; S is the sum of both, in units
    that neither overflow nor vanish.  V has its own units: in float32 means may differ by 1e18 at most.
    """

    def total(terms: Sequence[Tensor]) -> Tensor:
        return added([term.sum(0) for term in terms] if subsets else terms)

    def kept(terms: Sequence[Tensor], fill: float) -> Sequence[Tensor]:
        """Replace what is absent in the terms of all tensors, or of all but the first."""
        if columns is None:
            return terms
        return [torch.where(column, term, fill) for column, term in zip(columns[-len(terms) :], terms, strict=True)]

    if columns is None:
        number: Tensor | float = float(sum(len(mu) for mu in mus) if subsets else len(mus))
    else:
        number = total([column.to(mus[0].dtype) for column in columns]).clamp(min=1)
    # Differences with the first expert, so that copies of a view have exactly its mean.
    moves = kept([mu - mus[0] for mu in mus[1:]], 0.0)
    move = total(moves) / number
    gaps = kept([-move.expand_as(mus[0]), *(one - move for one in moves)], 0.0)
    V = total([gap.square() for gap in gaps]) if subsets else weighted_sum(gaps, gaps)
    lvs = kept(lvs, -torch.inf)
    shift = torch.maximum(greatest([lv.detach().amax(0) for lv in lvs] if subsets else lvs), V.detach().log())
    # V is at most exp(shift), so their ratio cannot overflow; exp(-shift) is cut off where V is denormal.
    ratio = V * torch.exp((-shift).clamp(max=-math.log(torch.finfo(V.dtype).tiny)))
    S = total(exponentials(lvs, shift)) + ratio
    if columns is not None:
        S = torch.where(S == 0, 1.0, S)  # Of a row without views.
    scale = math.log(number) if isinstance(number, float) else number.log()
    return [(mus[0][0] if subsets else mus[0]) + move, shift + S.log() - scale]
