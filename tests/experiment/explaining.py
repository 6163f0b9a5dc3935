"""Operators that explain themselves, one of them with a loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

from torch import Tensor

import fusionkit
from fusionkit import registry
from tests.contract.mutants.right import Says


class Balanced(Says):
    """``Says`` with the loss ``3 sum_i w_i^2``, the mean over the rows, which equal weights make least."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        return {**said, "loss": 3 * said["weights"].square().sum(-1).mean()}


@contextmanager
def explaining() -> Iterator[None]:
    """Register the operators ``says`` and ``balanced``."""
    plugin = SimpleNamespace(__name__="explaining")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"says": Says, "balanced": Balanced})
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    with registry.isolated(plugin):
        yield
