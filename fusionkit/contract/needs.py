"""What some checks need of the machine.  Where it is missing they are skipped, with the reason."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch

from fusionkit.contract.rules import describe, outcome
from fusionkit.kernels.modes import compiling_in_this_process, finds_cpp_compiler

__all__ = ["NEEDS", "clean_dynamo", "missing"]


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
    """Compile a sum: only then it is known that there are header files too, and what the first time costs is paid."""
    if not finds_cpp_compiler():
        return "needs a C++ compiler for torch.compile, and torch finds none"
    _, error = outcome(_compile_a_sum)
    if error is None:
        return None
    return f"needs a torch.compile that works, and with inductor a sum fails ({describe(error, 120)})"


def _compile_a_sum() -> None:
    with clean_dynamo():
        view = torch.ones(2, requires_grad=True)
        torch.compile(lambda view: view + 1, backend="inductor")(view).sum().backward()


@contextlib.contextmanager
def clean_dynamo() -> Iterator[None]:
    """Compile from a clean slate and leave one: earlier graphs count towards the limit of recompilations."""
    torch.compiler.reset()
    try:
        with compiling_in_this_process():
            yield
    finally:
        torch.compiler.reset()


def _interpreter() -> str | None:
    return None if sys.executable else "needs to start a Python interpreter, and sys.executable is empty"


#: need -> a function that returns why it is missing, or None.
NEEDS: dict[str, Callable[[], str | None]] = {
    "cuda": _cuda,
    "compiler": _compiler,
    "onnx": _modules("onnx", "onnxscript"),
    "onnxruntime": _modules("onnxruntime"),
    "hypothesis": _modules("hypothesis"),
    "interpreter": _interpreter,
}


def missing(needs: tuple[str, ...]) -> str | None:
    """Return why the first missing need is missing, None if nothing is."""
    return next((reason for need in needs if (reason := NEEDS[need]()) is not None), None)
