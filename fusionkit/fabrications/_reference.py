"""Loops from which the fabrications' ``reference`` methods are made: slow, in float64, one entry of W at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: (i, j) -> W_ij.
Entry = Callable[[int, int], float]


def filled(n: int, D: int, entry: Entry) -> Tensor:
    """Return the matrix (n, D) with these entries."""
    return torch.tensor([[entry(i, j) for j in range(D)] for i in range(n)], dtype=torch.float64).view(n, D)


def dot(*factors: Sequence[float] | Tensor) -> float:
    """Return the sum of the products of corresponding numbers."""
    return math.fsum(math.prod(map(float, numbers)) for numbers in zip(*factors, strict=True))


def product(A: Tensor, B: Tensor) -> Tensor:
    """Return A B."""
    return filled(A.shape[0], B.shape[1], lambda i, j: dot(A[i], B[:, j]))


def kronecker_entry(A: Tensor, B: Tensor) -> Entry:
    """Return the entries of the Kronecker product of two matrices."""
    s, t = B.shape
    return lambda i, j: float(A[i // s, j // t]) * float(B[i % s, j % t])
