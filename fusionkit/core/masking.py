"""Views that are absent from some rows: the argument ``mask``, views that are None, and the option ``missing``.

The functions with an argument ``self`` are methods of ``Fusion``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from fusionkit.core.traits import StandIn
from fusionkit.errors import FusionError, nearest
from fusionkit.kernels.elementwise import replaced

if TYPE_CHECKING:
    from fusionkit.core.fusion import Fusion

KINDS = get_args(StandIn)

BATCH_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d),
)


class Missing(nn.Module):
    """What an operator does about absent views beyond its own rule; the option ``missing`` of ``create``.

    - ``placeholder``: a learned vector (n_i,) stands for the absent view i; it starts at ``fill``, or at 0 where that
      is infinite.  ``placeholder`` (D,) holds those of all views.
    - ``indicator``: a learned vector (n,) is added to the result for every absent view; it starts at 0.  ``indicator``
      (k, n) holds those of all views.
    - ``rescale``: the result is multiplied by k / number of present views; only for linear operators.
    """

    def __init__(self, kind: str, dims: Sequence[int], n: int, fill: float, factory: dict[str, Any]) -> None:
        super().__init__()
        self.kind, self.dims, self.n = kind, tuple(dims), n
        self.start = fill if kind == "placeholder" and isfinite(fill) else 0.0
        if kind == "placeholder":
            self.placeholder = nn.Parameter(torch.empty(sum(dims), **factory))
        elif kind == "indicator":
            self.indicator = nn.Parameter(torch.empty(len(dims), n, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every entry to its first value."""
        for parameter in self.parameters():
            nn.init.constant_(parameter, self.start)

    def remove_parameters(self) -> None:
        """Leave the names of the parameters without values: every call gets them from outside."""
        self._parameters = dict.fromkeys(self._parameters)

    def extra_repr(self) -> str:
        """Return the kind."""
        return self.kind

    def restrict(self, views: Sequence[int]) -> Missing:
        """Return a copy for these views."""
        dims = [self.dims[i] for i in views]
        made = Missing(self.kind, dims, self.n, self.start, {"device": "meta"})
        for name, parameter in self.named_parameters():
            pieces = parameter.detach().split(self.dims if name == "placeholder" else 1)
            kept = nn.Parameter(torch.cat([pieces[i] for i in views]), parameter.requires_grad)
            made.register_parameter(name, kept)
        return made


def size_of_missing(self: Fusion) -> int:
    """Return the number of parameters that the option ``missing`` adds."""
    kind = self._arguments.get("missing")
    if kind == "placeholder":
        return sum(self.resolve_dims())
    return len(self.resolve_dims()) * self.calculate_n() if kind == "indicator" else 0


def add_missing(self: Fusion, kind: Any) -> None:
    """Give a new operator the option ``missing``; its parameters are the last ones of ``w``.

    Raises:
        FusionError: an unknown value, or ``rescale`` for an operator that is not linear.
    """
    if kind not in KINDS:
        hint = nearest(kind, KINDS) if isinstance(kind, str) else ""
        raise FusionError(f"missing should be None or one of {', '.join(KINDS)}; found {kind!r}.{hint}")
    if kind == "rescale" and not self.traits.linear:
        should = f"be placeholder or indicator for {self.name}, which is not linear"
        raise FusionError(f"missing should {should}; found 'rescale'.")
    self._arguments["missing"] = kind
    if self.dims is not None:
        self.attach(Missing(kind, self.dims, self.calculate_n(), self.fill, self._factory))


def attach(self: Fusion, part: Missing) -> None:
    """Register the parameters of the option ``missing`` behind all others of the operator."""
    self.stand_in = part
    self._layout |= {f"stand_in.{name}": tuple(parameter.shape) for name, parameter in part.named_parameters()}
    if not self.require_parameters:
        part.remove_parameters()


# ------------------------------------------------------------------ the call


def masked_views(self: Fusion, x: Any, mask: Any) -> tuple[list[Tensor | None], Tensor]:
    """Return the checked and preprocessed views, None where absent as a whole, and the mask (..., k) of all.

    The preprocess gets zeros for what is absent.

    Raises:
        FusionError: a view or the mask does not fit, or the operator refuses masks.
    """
    if isinstance(x, list | tuple) and x and all(view is None for view in x):
        raise FusionError("x should contain at least one tensor; found None for every view.")
    if not self.takes_masks:
        should = "get every view in every row, because it refuses masks"
        advice = "fusionkit.create(..., missing='placeholder') or add_missing('placeholder') makes it take them."
        raise FusionError(f"{self.name} should {should}; found {_found(x, mask)}.  {advice}")
    views: list[Tensor | None] = [*(self._views(x) or self._checked_views(x))]
    first = next(view for view in views if view is not None)
    checked = _checked_mask(mask, views, first)
    if self.preprocess is None:
        return views, checked
    if mask is not None:
        for step in self.preprocess.modules():
            if isinstance(step, BATCH_NORMS) and (step.training or step.running_mean is None):
                found = f"{type(step).__name__}, which would count the absent ones"
                raise FusionError(f"preprocess should not have statistics of the batch with a mask; found {found}.")
    ready = views if mask is None else replaced(views, checked, [0.0] * len(views))
    return self.preprocess(ready), checked


def fuse_present(
    self: Fusion, views: Sequence[Tensor | None], mask: Tensor, said: dict[str, Tensor] | None, *, by_row: bool
) -> Tensor:
    """Return the result of an operator for views of which the mask (..., k) says which are present.

    ``by_row`` is False where only whole views are absent, which are None.  ``said``: see ``Fusion.combine``.
    """
    part, k = self.stand_in, len(views)
    kind = None if part is None else part.kind
    fills: Sequence[float | Tensor] = [self.fill] * k
    like = next(view for view in views if view is not None)
    if part is not None and kind == "placeholder":
        fills = part.placeholder.to(like.dtype).split(part.dims)
    if by_row:
        views = replaced(views, mask, fills)
    filled = [
        torch.as_tensor(fill, dtype=like.dtype, device=like.device).expand(*like.shape[:-1], width)
        if view is None
        else view
        for view, width, fill in zip(views, self.resolve_dims(), fills, strict=True)
    ]
    out = self.combine(filled, None if kind == "placeholder" or self.traits.missing == "refuse" else mask, said)
    if part is not None and kind == "indicator":
        out = out + mask.logical_not().to(out.dtype) @ part.indicator.to(out.dtype)
    elif kind == "rescale":
        # Not in float64, which some devices lack.
        out = out * (k / present_count(mask, torch.promote_types(out.dtype, torch.float32))).to(out.dtype)
    return out


def present_count(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the number of present views of each row, at least 1: mask (..., k) -> (..., 1)."""
    return mask.sum(-1, keepdim=True, dtype=dtype).clamp(min=1)


def masked_softmax(scores: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Return the softmax over ``dim`` of the entries of which the mask says that they are present.

    Absent ones get 0, also where none is present; gradients are finite.

    Args:
        scores: finite numbers; in half precision infinite ones count as the largest finite ones.
        mask: bool, of a shape that broadcasts to that of the scores; None: all are present.
        dim: of the views.
    """
    wide = scores
    if scores.dtype.itemsize == 2:
        # Products of half precision overflow, and two infinite scores would give NaN.
        limit = torch.finfo(scores.dtype).max
        wide = scores.clamp(-limit, limit).float()
    if mask is None:
        return wide.softmax(dim).to(scores.dtype)
    empty = mask.any(dim, keepdim=True).logical_not()
    # A softmax of -inf alone would be NaN, also in the gradient if that was mended afterwards.
    present = torch.where(mask, wide, -torch.inf)
    return torch.where(empty, 0.0, torch.where(empty, 0.0, present).softmax(dim)).to(scores.dtype)


def _found(x: Any, mask: Any) -> str:
    if mask is not None:
        return "a mask"
    absent = [str(i) for i, view in enumerate(x) if view is None]
    return f"None for view {absent[0]}" if len(absent) == 1 else f"None for the views {', '.join(absent)}"


def _checked_mask(mask: Any, views: Sequence[Tensor | None], first: Tensor) -> Tensor:
    """Return the mask with the columns of views that are None set to False."""
    shape = (*first.shape[:-1], len(views))
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise FusionError(f"mask should be a tensor of bool, True where a view is present; found {found}.")
        if mask.shape != shape:
            should = f"have shape {tuple(shape)}, the leading dimensions and the number of views"
            raise FusionError(f"mask should {should}; found {tuple(mask.shape)}.")
        if mask.device != first.device:
            raise FusionError(f"mask should be on {first.device}, as the views are; found {mask.device}.")
        if all(view is not None for view in views):
            return mask
    given = torch.tensor([view is not None for view in views], device=first.device).expand(shape)
    return given if mask is None else mask & given
