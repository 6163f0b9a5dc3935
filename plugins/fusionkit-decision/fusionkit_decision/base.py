"""What several operators of this package share: their kinds of views, learned weights, and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fusionkit import DimsError
from fusionkit.fusion import ElementwiseFusion, check_choice, in_place_ok
from torch import Tensor, nn


class ClassFusion(ElementwiseFusion):
    """Base class for views that hold a number of each of c classes, (..., c) each -> (..., c)."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return c, the common width of the views; less than two classes are a ``DimsError``."""
        width = self.resolve_equal_dims(dims)
        if width < 2:
            raise DimsError(f"{self.name} should get views of at least 2 classes; found width {width}.")
        return width


class GaussianFusion(ElementwiseFusion):
    """Base class for views that hold means and logarithms of variances, [mu_i; lv_i], (..., 2d) each -> (..., 2d)."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return 2d, the common width of the views; an odd one is a ``DimsError``."""
        width = self.resolve_equal_dims(dims)
        if width % 2:
            raise DimsError(f"{self.name} should get views [mu; lv] of even width; found width {width}.")
        return width


class ViewWeights(ElementwiseFusion):
    """Mixin for operators with the option ``weighting``: with "learned" the parameter ``weight`` (k,), else none."""

    per_view = ("weight",)
    weighting: str
    #: The first value of every entry of ``weight``.
    start = 0.0

    def keep_weighting(self, weighting: Any, known: Sequence[str]) -> None:
        """Check the option and create its parameter; the constructor calls this last.

        Raises:
            FusionError: the value is unknown.
        """
        self.weighting = check_choice("weighting", weighting, known)
        if self.weighting != "learned":
            self.declare_traits(permutation_invariant=True)
        elif self.dims is not None:
            self.weight = nn.Parameter(torch.empty(len(self.dims), **self._factory))
            self.reset_parameters()

    def calculate_l(self) -> int:
        """Return k, the number of views, where their weights are learned, else 0."""
        return len(self.resolve_dims()) if self.weighting == "learned" else 0

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set every weight to its first value."""
        if self.weighting == "learned" and self.dims is not None:
            nn.init.constant_(self.weight, self.start)


def wide(x: Sequence[Tensor]) -> list[Tensor]:
    """Return the views in float32 at least, in which sums and products of half precision do not overflow."""
    dtype = torch.promote_types(x[0].dtype, torch.float32)
    return [view.to(dtype) for view in x]


def weighted_sum(x: Sequence[Tensor], factors: Sequence[Tensor | float]) -> Tensor:
    """Return the sum of the views (..., n) times their factors: numbers, or tensors (), (..., 1) or (..., n)."""
    out = x[0] * factors[0]
    in_place = in_place_ok([*x, *(factor for factor in factors if isinstance(factor, Tensor))])
    for view, factor in zip(x[1:], factors[1:], strict=True):
        if isinstance(factor, Tensor):
            out = out.addcmul_(view, factor) if in_place else torch.addcmul(out, view, factor)
        else:
            out = out.add_(view, alpha=factor) if in_place else out.add(view, alpha=factor)
    return out


def added(terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    if len(terms) == 1:
        return terms[0]
    out, in_place = terms[0] + terms[1], in_place_ok(terms)
    for term in terms[2:]:
        out = out.add_(term) if in_place else out + term
    return out


def greatest(x: Sequence[Tensor]) -> Tensor:
    """Return the greatest of the tensors, entry by entry: a shift that the result does not depend on, so no gradient.

    At least the lowest finite number, so that differences with it are not NaN.
    """
    out = x[0].detach()
    for view in x[1:]:
        out = torch.maximum(out, view.detach())
    return out.clamp(min=torch.finfo(out.dtype).min)


def exponentials(x: Sequence[Tensor], shift: Tensor) -> list[Tensor]:
    """Return exp(x_i - shift)."""
    if in_place_ok([*x, shift]):
        return [(view - shift).exp_() for view in x]
    return [torch.exp(view - shift) for view in x]


def logsumexp(x: Sequence[Tensor]) -> Tensor:
    """Return the logsumexp over the tensors, entry by entry; -inf without gradient where all are -inf."""
    shift = greatest(x)
    # At least 1, where not all are -inf.
    total = added(exponentials(x, shift))
    return torch.where(total == 0, -torch.inf, shift + total.clamp(min=0.5).log())
