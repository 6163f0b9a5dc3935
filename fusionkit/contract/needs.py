"""Requirements of checks on the machine; a check is skipped if one is missing."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import torch

from fusionkit.contract.rules import describe, outcome
from fusionkit.kernels.modes import compiling_in_this_process, finds_cpp_compiler


def _cuda() -> str | None:
    return None if torch.cuda.is_available() else "needs a CUDA device, and torch finds none"


def _module(name: str) -> str | None:
    return None if importlib.util.find_spec(name) else f"needs {name}, which is not installed"


@lru_cache(maxsize=1)
def _compiler() -> str | None:
    """Compile a sum, which also shows whether the header files are there."""
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
    """Clear torch's compiled graphs before and after: they count towards its limit of recompilations."""
    torch.compiler.reset()
    try:
        with compiling_in_this_process():
            yield
    finally:
        torch.compiler.reset()


def _interpreter() -> str | None:
    return None if sys.executable else "needs to start a Python interpreter, and sys.executable is empty"


#: Requirement -> a function that returns why it is missing, or None.
NEEDS: dict[str, Callable[[], str | None]] = {
    "cuda": _cuda,
    "compiler": _compiler,
    "onnx": lambda: _module("onnx") or _module("onnxscript"),
    "onnxruntime": partial(_module, "onnxruntime"),
    "hypothesis": partial(_module, "hypothesis"),
    "interpreter": _interpreter,
}


def missing(needs: tuple[str, ...]) -> str | None:
    """Return the reason for the first requirement that is missing; None if all are there."""
    return next((reason for need in needs if (reason := NEEDS[need]()) is not None), None)
