"""What the adapters of published modules share."""

from __future__ import annotations

import importlib
import math
import sys
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import Any, Unpack

import torch
from torch import Tensor, nn

import fusionkit
from fusionkit.fusion import FusionOptions

#: The packages that were imported as empty stand-ins, for the page.
STAND_INS: list[str] = []


class Published(fusionkit.Fusion):
    """A published module behind the interface of a fusion.

    A subclass writes ``make``, ``calculate_n`` and ``call``.  The module gets rows: leading dimensions are flattened.
    """

    def __init__(
        self, n: int | None = None, dims: Sequence[int] | None = None, **common: Unpack[FusionOptions]
    ) -> None:
        super().__init__(n, dims, **common)
        if self.dims is not None:
            with torch.device(self._factory["device"] or torch.get_default_device()):
                self.module = self.make(list(self.dims)).to(self._factory["dtype"])

    def make(self, dims: list[int]) -> nn.Module:
        """Return the published module for views of these widths."""
        raise NotImplementedError

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the module with views (rows, n_i) and the mask (rows, k), True where a view is present."""
        raise NotImplementedError

    def calculate_l(self) -> int:
        """Return the number of parameters of the module, counted on the meta device."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.make(list(self.resolve_dims())).parameters())

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return self._called(x, None)

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self._called(x, mask)

    def _called(self, x: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        lead = x[0].shape[:-1]
        if len(lead) == 1:
            return self.call(list(x), mask)
        # Not -1, which an empty batch leaves open.
        rows = math.prod(lead)
        flat = [view.reshape(rows, view.shape[-1]) for view in x]
        out = self.call(flat, None if mask is None else mask.expand(*lead, len(x)).reshape(rows, len(x)))
        return out.reshape(*lead, *out.shape[1:])


class _Empty(ABCMeta):
    """The type of the empty classes, every attribute of which is an empty class too."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Empty(name, (nn.Module,), {})


class _StandIns:
    """Finds the packages of the given names as modules whose every attribute is an empty class."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self.names else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        def attribute(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Empty(name, (nn.Module,), {})

        module.__getattr__, module.__version__ = attribute, "99"


@contextmanager
def stand_ins(*names: str) -> Iterator[None]:
    """Import packages that the module does not use as empty stand-ins within the context."""
    STAND_INS.extend(names)
    finder: Any = _StandIns(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
        importlib.invalidate_caches()
