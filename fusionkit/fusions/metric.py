"""Any reduction over the views."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from fusionkit.errors import FusionError, nearest
from fusionkit.fusion import ElementwiseFusion, FusionOptions, Traits, present_count
from fusionkit.fusions.median import lower_median

Metric = Callable[..., Any]

#: The names that a config may use.
NAMES: dict[str, Metric] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
    "prod": torch.prod,
    "median": torch.median,
    "var": functools.partial(torch.var, correction=0),
    "logsumexp": torch.logsumexp,
}

#: What stands for an absent view in a named metric; 0 in the others.
FILLS = {"max": -math.inf, "min": math.inf, "prod": 1.0, "median": math.inf, "logsumexp": -math.inf}


class MetricFusion(ElementwiseFusion):
    """``metric(A_1, ..., A_k)``, entry by entry, of k views of equal width, (..., n) each -> (..., n); l = 0.

    It stacks the views in memory; the operators for single reductions (``average``, ``maximum``, ...) do not.

    Args:
        metric: a name (sum, mean, max, min, prod, median, var, logsumexp), or a callable that reduces the last
            dimension of a tensor (N, k), one row per entry of the result, to (N,).  It is called as
            ``metric(t, dim=-1)`` if it takes ``dim``, as the reductions of torch do, else as ``metric(t)``.  It should
            treat all views alike and each row separately.  A module must not have parameters.  With a mask, a named
            metric reduces the present views and gives 0 (prod: 1) in a row without any; a callable refuses masks.

    Raises:
        FusionError: ``metric`` is none of these, or returns a wrong shape or an integer dtype.
    """

    traits = Traits(permutation_invariant=True, batch_independent=True, missing="skip")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        metric: str | Metric = "mean",
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        found = NAMES.get(metric) if isinstance(metric, str) else metric
        if not callable(found) or isinstance(found, type):
            hint = nearest(metric, NAMES) if isinstance(metric, str) else ""
            raise FusionError(f"metric should be one of {', '.join(NAMES)}, or a callable; found {metric!r}.{hint}")
        if isinstance(found, torch.nn.Module) and list(found.parameters()):
            raise FusionError(f"metric should have no parameters; found {metric!r}.")
        self.metric = found
        self._takes_dim = _takes_dim(found)
        if isinstance(metric, str):
            self.fill = FILLS.get(metric, 0.0)
        else:
            self.declare_traits(missing="refuse")

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return reductions with and without ties."""
        return [{"dims": [4, 4, 4]}, {"dims": [3, 3], "metric": "logsumexp"}]

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = x[0]
        stack = torch.stack(tuple(x), -1).flatten(0, -2)
        rows, k = stack.shape
        if type(rows) is int and rows == k:
            # A square tensor would hide that the metric reduces the wrong dimension.
            stack = torch.cat([stack, stack[:1]])
        out = self.metric(stack, dim=-1) if self._takes_dim else self.metric(stack)
        # Some reductions of torch return (values, indices).
        out = getattr(out, "values", out) if isinstance(out, tuple) else out
        if not isinstance(out, Tensor) or out.shape != stack.shape[:-1]:
            found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise FusionError(f"metric should reduce {tuple(stack.shape)} to {tuple(stack.shape[:-1])}; found {found}.")
        if not out.is_floating_point():
            raise FusionError(f"metric should return a floating-point tensor; found {out.dtype}.")
        return out[:rows].to(first.dtype).reshape(first.shape)

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        stack, present = torch.stack(tuple(x), -1), mask.unsqueeze(-2)
        # Without a view the gradient of the infinite values would be NaN.
        some = present.any(-1)
        stack = torch.where(some.unsqueeze(-1), stack, 0.0)
        if self.metric is NAMES["median"]:
            out = lower_median(stack, present_count(mask))
        elif self.metric in (NAMES["mean"], NAMES["var"]):
            count = present_count(mask, torch.promote_types(stack.dtype, torch.float32))
            share = count.reciprocal().unsqueeze(-1)
            out = (stack * share).sum(-1)
            if self.metric is NAMES["var"]:
                centered = torch.where(present, stack - out.unsqueeze(-1), 0.0)
                out = (centered.square() * share).sum(-1)
        else:
            out = self.metric(stack, dim=-1)
        return torch.where(some, out, 1.0 if self.metric is torch.prod else 0.0).to(x[0].dtype)


def _takes_dim(metric: Metric) -> bool:
    try:
        parameters = inspect.signature(metric).parameters
    except (TypeError, ValueError):
        return True
    return "dim" in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
