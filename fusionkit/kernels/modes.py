"""Which of torch's modes is on: compilation, functorch transforms, autocast, forward-mode differentiation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = ["autocasting", "in_place_ok", "plain", "recording"]


#: The kinds of device that have autocast: asked once, since torch.compile does not look into the question.
AUTOCASTING = frozenset(
    kind
    for kind in ("cpu", "cuda", "hpu", "maia", "mps", "mtia", "xla", "xpu", torch._C._get_privateuse1_backend_name())
    if torch.amp.is_autocast_available(kind)
)


def in_place_ok(tensors: Iterable[Tensor]) -> bool:
    """Tell whether results may be accumulated in place.

    Not while compiling or exporting, inside functorch transforms (a batched operand cannot be added in place to an
    unbatched result), in batched gradients, which still use an older kind of batched tensor, or on tensor subclasses.
    """
    functorch = torch._C._functorch
    if torch.compiler.is_compiling() or functorch.peek_interpreter_stack() is not None:
        return False
    return all(
        type(tensor) in (Tensor, nn.Parameter) and not functorch.is_legacy_batchedtensor(tensor) for tensor in tensors
    )


def autocasting(device: torch.device) -> bool:
    """Tell whether autocast is on for ``device``; torch refuses the question for devices that have none, as meta."""
    kind = device.type
    return kind in AUTOCASTING and torch.is_autocast_enabled(kind)


def plain(x: Sequence[Tensor]) -> bool:
    """Tell whether views may be combined into a preallocated result, with a derivative of one's own."""
    return forward_ad._current_level < 0 and in_place_ok(x)


def recording(x: Sequence[Tensor]) -> bool:
    """Tell whether a gradient is being recorded for any of the views."""
    return torch.is_grad_enabled() and any(view.requires_grad for view in x)
