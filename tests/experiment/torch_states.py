"""The states of torch that a caller of fusionkit may have set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch


@contextmanager
def _changed(change: Callable[[Any], None], value: Any, usual: Any) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(usual)


#: name -> returns a context in which torch is in that state
STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype": partial(_changed, torch.set_default_dtype, torch.float64, torch.float32),
    "default device": partial(_changed, torch.set_default_device, "meta", None),
    "device context": partial(torch.device, "meta"),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}
