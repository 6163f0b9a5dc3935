"""Replaces own parameters by an external ``w``: checks it, cuts it, and puts it into a shallow copy of the operator."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fusionkit.errors import FusionError
from fusionkit.kernels.modes import autocasting

if TYPE_CHECKING:
    from fusionkit.core.fusion import Fusion


def size_of_w(fusion: Fusion) -> int:
    """Return the length l of ``w``, also for an operator that owns no parameters."""
    return sum(map(prod, fusion._layout.values()))


def with_parameters(fusion: Fusion, w: Tensor, view: Tensor) -> Fusion:
    """Return a shallow copy of ``fusion`` whose own parameters are cut from ``w``; ``fusion`` itself is not changed.

    Args:
        fusion: the operator.
        w: (l,) or (1, l), in the order of ``flat_w``.
        view: a view, whose device and dtype ``w`` should have.

    Raises:
        FusionError: a wrong shape, device or dtype, or an operator whose parameters cannot be replaced.
    """
    size = size_of_w(fusion)
    if not isinstance(w, Tensor):
        raise FusionError(f"w should be a tensor of shape ({size},) or (1, {size}); found {type(w).__name__}.")
    if w.dtype == torch.bool:
        raise FusionError("w should be a tensor of parameters; found one of bool: give a mask by name, mask=...")
    blocks = cut(w, fusion._layout)
    if w.device != view.device:
        raise FusionError(f"w should be on {view.device}, as the views are; found {w.device}.")
    # With size 0 any dtype is fine: .to(dtype) leaves no trace in a module without parameters.
    if size and w.dtype != view.dtype and not autocasting(view.device):
        raise FusionError(f"w should be of dtype {view.dtype}, as the views are; found {w.dtype}.")
    _check_replaceable(fusion)
    return _copy_with(fusion, blocks) if size else fusion


def cut(w: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Cut ``w`` (l,) or (1, l) into blocks, views of these shapes.

    Raises:
        FusionError: a wrong length.
    """
    sizes = [prod(shape) for shape in shapes.values()]
    l = sum(sizes)
    if tuple(w.shape) not in ((l,), (1, l)):
        raise FusionError(f"w should have shape ({l},) or (1, {l}); found {tuple(w.shape)}.")
    pieces = w.reshape(-1).split(sizes) if sizes else ()
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def _check_replaceable(fusion: Fusion) -> None:
    """Raise a ``FusionError`` where own parameters are tied, parametrized or pruned."""
    expected = list(fusion._layout)
    if fusion.require_parameters:
        owned = list(fusion._own_parameters())
        names = [name for name, _ in owned]
        if len({id(parameter) for _, parameter in owned}) < len(owned):
            raise FusionError(f"{fusion.name} should have untied parameters to take w; found tied ones among {names}.")
    else:
        entries = (prefix + name for module, prefix in fusion._own_modules() for name in module._parameters)
        names = [name for name in entries if name in expected]
    if names != expected:
        should = f"have the parameters it was built with, {expected}, to take w"
        raise FusionError(f"{fusion.name} should {should}; found {names} (parametrized or pruned).")


def _copy_with(fusion: Fusion, values: Mapping[str, Tensor]) -> Fusion:
    copies: dict[int, nn.Module] = {}

    def copy(module: nn.Module, prefix: str) -> nn.Module:
        # A child with two names keeps the parameters of the first; one without own parameters is not copied.
        if id(module) in copies:
            return copies[id(module)]
        if not any(name.startswith(prefix) for name in values):
            return module
        made = copies[id(module)] = object.__new__(type(module))
        made.__dict__.update(module.__dict__)
        made.__dict__["_parameters"] = {name: values.get(prefix + name) for name in module._parameters}
        made.__dict__["_modules"] = {
            name: child
            if child is None or (not prefix and name in ("preprocess", "postprocess"))
            else copy(child, f"{prefix}{name}.")
            for name, child in module._modules.items()
        }
        return made

    return copy(fusion, "")  # type: ignore[return-value]
