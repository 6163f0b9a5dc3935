"""Operators that fail in every way while they train; installed as a distribution, so that workers find them too."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence

import numpy as np
import torch

import fusionkit


class Exits(fusionkit.Fusion):
    """``A_1 ⊔ ... ⊔ A_k``, after something terrible."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return sum(self.resolve_dims(dims))

    def calculate_l(self) -> int:
        return 0

    def _fuse(self, x: Sequence[torch.Tensor]) -> torch.Tensor:
        self.trouble()
        return torch.cat(tuple(x), -1)

    def trouble(self) -> None:
        raise SystemExit(3)


class Odd(Exception):
    """Can be neither told nor pickled."""

    def __init__(self, first: int, second: int) -> None:
        self.unpicklable = lambda: first + second

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unpicklable(Exits):
    def trouble(self) -> None:
        raise Odd(1, 2)


class Quits(Exits):
    def trouble(self) -> None:
        os._exit(7)


class Dies(Exits):
    def trouble(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Naughty(Exits):
    def _fuse(self, x: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(tuple(x), -1) * float("nan")


class Roams(Exits):
    """Leaves the process elsewhere, and draws from everybody's random numbers."""

    def trouble(self) -> None:
        os.chdir("/")
        torch.set_default_dtype(torch.float64)

    def _fuse(self, x: Sequence[torch.Tensor]) -> torch.Tensor:
        return super()._fuse(x) * (1 + random.random() + float(np.random.rand()))


class Fells(Exits):
    """Kills the worker of the job, also from a process of the job's own."""

    def trouble(self) -> None:
        if "alone()" in sys.orig_argv[-1]:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
