"""The passive check: a hook that verifies an operator at its first call, in the program that uses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusionkit.core.fusion import Fusion
from fusionkit.errors import FusionError
from fusionkit.kernels.modes import autocasting


def attach(op: Fusion) -> None:
    """Let ``op`` verify n, l, shape, dtype and device at its first forward."""
    # Its handle is not needed: the hook removes itself when it passes, also from a copy of the operator.
    op.register_forward_hook(PassiveCheck(), with_kwargs=True)


class PassiveCheck:
    """The forward hook; a class, because an operator with a function as a hook cannot be pickled."""

    def __call__(self, op: Fusion, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Verify one call.

        Raises:
            FusionError: the result differs from what the operator's methods and the views say.
        """
        if torch.compiler.is_compiling():
            return  # A traced call has no values to verify; the hook stays for the next call.
        x = kwargs["x"] if "x" in kwargs else args[0]
        device = kwargs.get("device", args[2] if len(args) > 2 else None)
        self._verify(op, next(view for view in x if view is not None), device, out)
        for identity in [identity for identity, hook in list(op._forward_hooks.items()) if hook is self]:
            op._forward_hooks.pop(identity, None)
            op._forward_hooks_with_kwargs.pop(identity, None)

    def _verify(self, op: Fusion, view: Tensor, device: Any, out: Any) -> None:
        if not isinstance(out, Tensor):
            raise _broken(op, "return a tensor", type(out).__name__)
        n = op.calculate_n()
        shape = (*view.shape[:-1], n)
        if tuple(out.shape) != shape:
            raise _broken(op, f"return shape {shape}, where calculate_n() = {n}", str(tuple(out.shape)))
        wanted = torch.device(device) if device is not None else view.device
        if out.device.type != wanted.type or wanted.index not in (None, out.device.index):
            raise _broken(op, f"return a tensor on {wanted}", str(out.device))
        if out.dtype != view.dtype and not autocasting(out.device):
            raise _broken(op, f"return dtype {view.dtype}, as the views have", str(out.dtype))
        own = sum(parameter.numel() for _, parameter in op._own_parameters())
        l = op.calculate_l()
        if op.require_parameters and l != own:
            raise _broken(op, f"have calculate_l() = {own}, the elements of its own parameters", str(l))


def _broken(op: Fusion, should: str, found: str) -> FusionError:
    return FusionError(f"{op.name} should {should}; found {found}.")
