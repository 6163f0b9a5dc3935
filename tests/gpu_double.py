"""Stands for a GPU where there is none."""

from __future__ import annotations

from torch import Tensor


class OnAGPU(Tensor):
    """Says that it is on a GPU, to what looks at nothing else."""

    is_cuda = True
