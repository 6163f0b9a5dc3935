"""An operator that draws numbers from every generator while it trains, and may end its process then."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch

import fusionkit
from fusionkit import registry
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation

#: The number of calls in training after which the process is killed, the one of this variable.
VARIABLE = "MORTAL_CALLS"


class Mortal(ParameterizedConcatenation):
    """``W [x_1, ..., x_k] + b``, times a random number in training."""

    calls = 0

    def _fuse(self, x: Sequence[torch.Tensor]) -> torch.Tensor:
        out = super()._fuse(x)
        if not self.training:
            return out
        self.calls += 1
        if self.calls == int(os.environ.get(VARIABLE, "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        drawn = random.gauss(1, 0.1) + 0.1 * float(np.random.randn())
        return out * drawn * (1 + 0.1 * torch.rand_like(out))


@contextmanager
def mortal() -> Iterator[None]:
    """Register the operator ``mortal``."""
    plugin = SimpleNamespace(__name__="mortal")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"mortal": Mortal})
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    with registry.isolated(plugin):
        yield
