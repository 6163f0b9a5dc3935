"""Which of torch's modes is on; and every private name of torch that the package uses.

Private names are read at import, those of the compiler at first use.  Where a version of torch lacks one, its stand-in
gives the answer that is slower and right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode


def _private(path: str, stand_in: Callable[..., Any]) -> Any:
    """Return what is called ``path`` in torch, or ``stand_in`` where this version has no such name."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name, stand_in)
    except ImportError:
        return stand_in


def _maybe(*_: Any) -> bool:
    return True


_interpreter = _private("torch._C._functorch.peek_interpreter_stack", _maybe)
_is_legacy_batched = _private("torch._C._functorch.is_legacy_batchedtensor", _maybe)
_outside_transforms = _private("torch._C._DisableFuncTorch", contextlib.nullcontext)
_private_backend = _private("torch._C._get_privateuse1_backend_name", lambda: "cpu")

#: The kinds of device that have autocast: computed once, since torch.compile cannot trace the question.
AUTOCASTING = frozenset(
    kind
    for kind in ("cpu", "cuda", "hpu", "maia", "mps", "mtia", "xla", "xpu", _private_backend())
    if torch.amp.is_autocast_available(kind)
)


# ------------------------------------------------------------------ which mode is on


def in_transform() -> bool:
    """Whether a functorch transform (vmap, grad, jvp, ...) is running."""
    return _interpreter() is not None


def in_place_ok(tensors: Iterable[Tensor]) -> bool:
    """Whether results may be accumulated in place.

    Not while compiling or exporting, inside functorch transforms (a batched operand cannot be added in place to an
    unbatched result), in batched gradients, which still use an older kind of batched tensor, or on tensor subclasses.
    """
    if torch.compiler.is_compiling() or _interpreter() is not None:
        return False
    return all(type(tensor) in (Tensor, nn.Parameter) and not _is_legacy_batched(tensor) for tensor in tensors)


def supports_out_kernels(tensors: Iterable[Tensor]) -> bool:
    """Whether ``out=`` and a custom autograd.Function are safe here: where ``in_place_ok``, but not in forward mode."""
    return getattr(forward_ad, "_current_level", 0) < 0 and in_place_ok(tensors)


def autocasting(device: torch.device) -> bool:
    """Whether autocast is on for ``device``; torch refuses the question for devices that have none, as meta."""
    kind = device.type
    return kind in AUTOCASTING and torch.is_autocast_enabled(kind)


def recording(x: Sequence[Tensor]) -> bool:
    """Whether a gradient is being recorded for any of the views."""
    return torch.is_grad_enabled() and any(view.requires_grad for view in x)


def outside_transforms() -> AbstractContextManager[Any]:
    """Suspend functorch transforms, for random numbers that do not depend on a batch: vmap refuses to draw any."""
    context: AbstractContextManager[Any] = _outside_transforms()
    return context


# ------------------------------------------------------------------ watching operations


class DispatchMode(TorchDispatchMode):
    """Base of what watches every operation: a subclass defines ``__torch_dispatch__``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True, the default, would import all of torch._dynamo, a second, at the first operation.
        return False


def writes_in_place(operation: Any) -> bool:
    """Whether an operation, as ``__torch_dispatch__`` gets it, changes one of its arguments."""
    return bool(operation._schema.is_mutable)


def fake_tensors() -> Any:
    """Return a new FakeTensorMode; ``.from_tensor`` makes a fake tensor."""
    return import_module("torch._subclasses.fake_tensor").FakeTensorMode()


# ------------------------------------------------------------------ the compiler


def load_compiler() -> None:
    """Import torch's compiler, which takes a second: else the first operation on a meta tensor does."""
    import_module("torch._dynamo")


def finds_cpp_compiler() -> bool:
    """Whether torch finds a C++ compiler; True if that cannot be found out."""
    try:
        _private("torch._inductor.cpp_builder.get_cpp_compiler", _maybe)()
    except Exception:  # What torch raises differs from version to version.
        return False
    return True


@contextlib.contextmanager
def compiling_in_this_process() -> Iterator[None]:
    """Compile without a pool of processes, which would stay, each with a torch of its own."""
    config = import_module("torch._inductor.config")
    with config.patch(compile_threads=1):
        yield
