"""Operators that misbehave as programs: they raise, hang, exit, print, or return something else than a tensor."""

from __future__ import annotations

import random
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from tests.contract.mutants.right import Mix, Total


class RaisesInConstructor(Mix):
    def create(self) -> None:
        raise RuntimeError("no constructor today")


class RaisesInExamples(Mix):
    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        raise RuntimeError("no examples today")


class NoExamples(Mix):
    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        return []


class ExitsInExamples(Mix):
    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        sys.exit(5)


class HangsInExamples(Mix):
    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        while True:
            pass


class RaisesInL(Mix):
    def calculate_l(self) -> int:
        raise KeyError("no l today")


class Hangs(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        while True:
            try:
                sum(range(10_000))
            except Exception:
                continue


class Exits(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        sys.exit(3)


class ExitsInConstructor(Mix):
    def create(self) -> None:
        sys.exit(4)


class Interrupts(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        raise KeyboardInterrupt


class YieldsForever(Mix):
    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        while True:
            yield {"dims": [4, 4]}


class Prints(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        print("hello from the operator")
        return super()._fuse(x)


class ReturnsTuple(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Any:
        return (super()._fuse(x),)


class ReturnsArray(Total):
    def _fuse(self, x: Sequence[Tensor]) -> Any:
        return super()._fuse(x).detach().numpy()


class ReturnsSparse(Total):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x).to_sparse()


class ReturnsNone(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Any:
        return None


class LeavesTraces(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        torch.manual_seed(99)
        random.seed(99)
        numpy.random.seed(99)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        warnings.simplefilter("error")
        return super()._fuse(x)


class ClosesOutput(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        sys.stdout.close()
        return super()._fuse(x)


class LeavesThread(Mix):
    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        threading.Thread(target=time.sleep, args=(1,), name="left behind").start()
        return super()._fuse(x)


class AddsInPlace(Mix):
    """Breaks many rules at once."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if not x[0].numel():
            raise KeyError("an error")
        return x[0].add_(super()._fuse(x))
