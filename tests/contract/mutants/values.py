"""Wrong in values, dtypes or devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.contract.mutants.right import Mix, Total
from tests.contract.mutants.table import caught_by


@caught_by("dtype_preserved")
class HalfInFloat(Mix):
    """Computes half precision in float32 and does not cast back."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


@caught_by("dtype_preserved")
class TakesIntegers(Total):
    """Accepts integer views."""

    def _views(self, x: Any) -> Any:
        return super()._views([view if view.is_floating_point() else view.double() for view in x])


@caught_by("dtype_preserved")
class RoundsInHalf(Mix):
    """Has another result in bfloat16."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.round() if out.dtype == torch.bfloat16 else out


@caught_by("dtype_preserved")
class ShiftsInSingle(Mix):
    """Has another result in float32, always."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out + 0.01 if out.dtype == torch.float32 else out


@caught_by("dtype_preserved")
class DetachesInSingle(Mix):
    """Loses a part of a gradient in float32 only."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = 0.5 * x[0] + 0.5 * x[0].detach() if x[0].dtype == torch.float32 else x[0]
        return super()._fuse([first, *x[1:]])


@caught_by("device_preserved")
class ConstantOnCpu(Mix):
    """Adds a constant that is always on the cpu."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out + torch.zeros(out.shape[-1], dtype=out.dtype, device="cpu")


@caught_by("device_preserved")
class TakesNoDevice(Mix):
    """Has a forward without the argument device."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x, w)


@caught_by("device_preserved")
class IgnoresTheDevice(Total):
    """Takes the argument device, and moves nothing there."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        return super().forward(x, w, mask=mask)


@caught_by("device_preserved")
class LeavesWBehind(Mix):
    """Moves the views to the device, and not w."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        return super().forward(x if device is None else [view.to(device) for view in x], w, mask=mask)


@caught_by("reference")
class WrongReference(Mix):
    """Has a reference that is the plain sum."""

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([view.double() for view in x]).sum(0)


@caught_by("nonfinite")
class HidesNaN(Mix):
    """Replaces NaN by zero."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([torch.where(view.isnan(), 0, view) for view in x])


@caught_by("extreme_values")
class SquaresFirst(Mix):
    """Squares before it takes the root."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([view.sign() * (view * view).sqrt() for view in x])


@caught_by("autocast")
class MixesDtypes(Mix):
    """Contracts two tensors of which autocast casts only one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        eye = torch.eye(x[0].shape[-1], dtype=x[0].dtype, device=x[0].device)
        out: Tensor = torch.tensordot(super()._fuse(x) @ eye, eye, 1)
        return out
