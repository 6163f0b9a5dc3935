"""Sum of the views with fixed weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from fusionkit.errors import DimsError, FusionError
from fusionkit.fusion import ElementwiseFusion, FusionOptions, Traits, check_number, in_place_ok


class WeightedSummation(ElementwiseFusion):
    """``a_1 A_1 + ... + a_k A_k`` with fixed a, of k views of equal width, (..., n) each -> (..., n); l = 0.

    The weights are the buffer ``weights`` (k,), so they move with the operator.  The result has the dtype of the views.

    Args:
        weights: k finite numbers; None means 1 for every view.

    Raises:
        DimsError: the number of weights is not k.
    """

    traits = Traits(linear=True, batch_independent=True, missing="neutral")
    per_view = ("weights",)
    weights: Tensor

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        weights: Sequence[float] | None = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self._fixed = None if weights is None else _numbers(weights)
        if self.dims is not None:
            self.calculate_n()
            self.register_buffer("weights", torch.empty(len(self.dims), **self._factory))
            self.reset_frozen()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return positive and negative weights, and the default."""
        return [{"dims": [4, 4, 4], "weights": [0.5, -1.0, 2.0]}, {"dims": [3, 3]}]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the common width of the views."""
        width = self.resolve_equal_dims(dims)
        k = len(self.resolve_dims(dims))
        if self._fixed is not None and len(self._fixed) != k:
            raise DimsError(f"weights should hold one number per view, {k}; found {len(self._fixed)}.")
        return width

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Write the given weights into the buffer."""
        self.reset_frozen()

    def reset_frozen(self) -> None:
        """Write the given weights into the buffer."""
        if self.dims is not None and not self.weights.is_meta:
            values = (1.0,) * len(self.dims) if self._fixed is None else self._fixed
            self.weights.copy_(torch.tensor(values, dtype=torch.float64))

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if self.weights.device != x[0].device:
            where = f"{self.weights.device}, as the weights of {self.name} are"
            raise FusionError(f"The views should be on {where}; found {x[0].device}.")
        return weighted_sum(x, self.weights)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Multiply a stacked float64 copy by the weights and add up."""
        return torch.stack([view.double() for view in x], -1) @ self.weights.double()


def weighted_sum(x: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return the sum of the views (..., n) times their weights (k,); half precision is added up in float32."""
    dtype = x[0].dtype
    # Zero-dimensional factors do not change the dtype of the views.
    factors = weights.unbind()
    out = x[0].float() if dtype in (torch.float16, torch.bfloat16) else x[0]
    out = out * factors[0]
    in_place = in_place_ok((weights, *x))
    for view, factor in zip(x[1:], factors[1:], strict=True):
        out = out.addcmul_(view, factor) if in_place else torch.addcmul(out, view, factor)
    return out.to(dtype)


def _numbers(weights: Any) -> tuple[float, ...]:
    """Return the weights as floats, or raise a ``FusionError`` that names the wrong one."""
    if isinstance(weights, Tensor):
        if weights.requires_grad:
            should = "be constant, and parameterized_weighted_summation learns them"
            raise FusionError(f"weights should {should}; found a tensor that requires a gradient.")
        weights = weights.tolist()
    if isinstance(weights, str | bytes) or not isinstance(weights, Iterable):
        raise FusionError(f"weights should be a sequence of numbers, one per view; found {weights!r}.")
    return tuple(check_number(f"weights[{i}], the weight of view {i},", value) for i, value in enumerate(weights))
