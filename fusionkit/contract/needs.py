"""What some checks need of the machine.  Where it is missing they are skipped, with the reason."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import lru_cache

import torch

__all__ = ["NEEDS", "missing"]


def _cuda() -> str | None:
    return None if torch.cuda.is_available() else "needs a CUDA device, and torch finds none"


def _modules(*names: str) -> Callable[[], str | None]:
    def absent() -> str | None:
        for name in names:
            if importlib.util.find_spec(name) is None:
                return f"needs {name}, which is not installed"
        return None

    return absent


@lru_cache(maxsize=1)
def _compiler() -> str | None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:
        return "needs a C++ compiler for torch.compile, and torch finds none"
    return None


def _interpreter() -> str | None:
    return None if sys.executable else "needs to start a Python interpreter, and sys.executable is empty"


#: need -> a function that returns why it is missing, or None.
NEEDS: dict[str, Callable[[], str | None]] = {
    "cuda": _cuda,
    "compiler": _compiler,
    "onnx": _modules("onnx", "onnxscript"),
    "onnxruntime": _modules("onnxruntime"),
    "hydra": _modules("hydra"),
    "hypothesis": _modules("hypothesis"),
    "interpreter": _interpreter,
}


def missing(needs: tuple[str, ...]) -> str | None:
    """Return why the first missing need is missing, None if nothing is."""
    return next((reason for need in needs if (reason := NEEDS[need]()) is not None), None)
