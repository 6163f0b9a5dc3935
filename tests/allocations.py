"""Watches what a computation allocates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class _Watch(TorchDispatchMode):
    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.untyped_storage().nbytes())
        return out


def largest(function: Callable[[], object]) -> int:
    """Return the size in bytes of the largest tensor that ``function`` makes."""
    watch = _Watch()  # type: ignore[no-untyped-call]
    with watch:
        function()
    assert watch.largest, "an operation should have been seen"
    return watch.largest
