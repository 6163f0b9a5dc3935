"""Fusions of tinyBIG, which come as functions of the views and of a parameter vector."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from adapter import STAND_INS, Published
from torch import Tensor, nn

import fusionkit


def _fusion() -> Any:
    """Return ``tinybig.fusion``, imported without the package's own ``__init__``, which imports all of tinyBIG."""
    found = find_spec("tinybig")
    assert found is not None
    package = ModuleType("tinybig")
    package.__path__, package.__spec__ = list(found.submodule_search_locations or ()), found
    sys.modules["tinybig"] = package
    STAND_INS.append("tinybig/__init__.py")
    importlib.import_module("tinybig.module")
    return importlib.import_module("tinybig.fusion")


fusion = _fusion()


class _SameWidth(Published):
    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the common width."""
        return self.resolve_equal_dims(dims)

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the fusion with the views and their device."""
        return self.module(x, device=str(x[0].device))


class Average(_SameWidth):
    """`mean_i A_i`."""

    traits = fusionkit.Traits(
        linear=True, permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True
    )

    def make(self, dims: list[int]) -> nn.Module:
        """Return the fusion."""
        self.calculate_n(dims)
        return fusion.average_fusion(dims=dims)


class Max(_SameWidth):
    """`max_i A_i`."""

    traits = fusionkit.Traits(
        permutation_invariant=True, batch_independent=True, idempotent=True, convex=True, monotone=True
    )

    def make(self, dims: list[int]) -> nn.Module:
        """Return the fusion."""
        self.calculate_n(dims)
        return fusion.max_fusion(dims=dims)


class _WithParameters(nn.Module):
    """A fusion with the parameter vector that it is called with."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.randn(1, function.calculate_l()))

    def forward(self, x: list[Tensor]) -> Tensor:
        return self.function(x, w=self.w, device=str(x[0].device))


class ParameterizedConcatenation(Published):
    """`W concat(A_1, ..., A_k)`, W (n, D)."""

    traits = fusionkit.Traits(linear=True, batch_independent=True, free_n=True)

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return n."""
        return self.resolve_free_n(dims)

    def make(self, dims: list[int]) -> nn.Module:
        """Return the fusion and its parameter vector."""
        return _WithParameters(fusion.parameterized_concatenation_fusion(dims=dims, n=self.calculate_n(dims)))

    def call(self, x: list[Tensor], mask: Tensor | None) -> Tensor:
        """Call the fusion with the views."""
        return self.module(x)
