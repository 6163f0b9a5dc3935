"""The state that a process, a thread or a module shares with its user, set to known values while fusionkit computes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fusionkit.kernels.modes import AUTOCASTING

_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


# In a forked process no thread would ever release a lock that another thread held.
os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def exclusive() -> Iterator[None]:
    """Compute in one thread at a time with torch's own defaults: float32, the CPU, gradients, no autocast.

    Default dtype, random generators and a model's training mode belong to the process, so other threads wait.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_lock)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in filter(torch.is_autocast_enabled, AUTOCASTING):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # The context costs time in each call of torch.
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode; afterwards each of its modules is in its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
