"""A matrix of circulant blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isqrt, log2
from typing import Any, cast

import torch
from torch import BoolTensor, Tensor

from fusionkit.fabrication import Fabrication, cropped, padded
from fusionkit.fabrications._options import limited
from fusionkit.fabrications._reference import filled
from fusionkit.fabrications.toeplitz import diagonal_lengths, diagonals
from fusionkit.fusion import check_size
from fusionkit.kernels.matmul import linear
from fusionkit.kernels.planning import Effort

#: Up to this length multiplying by the Fourier matrix is faster than an FFT.
SHORT = 64


class BlockCirculant(Fabrication):
    """``W_ij = c[floor(i/b), floor(j/b), (i - j) mod b]``; block c (ceil(n/b), ceil(D/b), b).

    W is a grid of circulant matrices (b, b), cropped to (n, D).  l = ceil(n/b) * ceil(D/b) * b.  A circulant matrix is
    diagonal in the Fourier basis.  Source: Ding et al., "CirCNN", 2017, section 3.

    Args:
        b: size of the blocks, from 1 to max(n, D); None means the greatest power of two up to sqrt(min(n, D)).
    """

    def __init__(self, b: int | None = None) -> None:
        super().__init__()
        self.b = None if b is None else check_size("b, the block size of block_circulant,", b)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and a block size that divides little."""
        return [{}, {"b": 3}]

    def block_size(self, n: int, D: int) -> int:
        """Return b, or the default for this size.

        Raises:
            FusionError: b is greater than max(n, D).
        """
        default = 1 << (isqrt(min(n, D)).bit_length() - 1)
        what = "b, the block size of block_circulant,"
        return limited(what, self.b, default, "max(n, D)", max(n, D), n, D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the first columns of the blocks."""
        b = self.block_size(n, D)
        return {"c": (-(-n // b), -(-D // b), b)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        p, q, b = self.checked_shapes(n, D)["c"]
        f = b // 2 + 1
        if b <= 2:
            return Effort(n * D)
        mixing, copies, setup = 4 * f * p * q, D + 2 * f * q + 4 * f * p + n, 6 * f * p * q
        if b <= SHORT:
            return Effort(mixing + 2 * f * b * (p + q), copies, setup)
        return Effort(mixing, copies + 2 * f * q + (p + q) * b * log2(b) / 2, setup)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        c = blocks["c"]
        p, q, b = c.shape
        grid = diagonals(torch.cat([c[..., 1:], c], -1), b, b)
        return grid.transpose(1, 2).reshape(p * b, q * b)[:n, :D]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        c = self.split(w, n, D)["c"]
        b = c.shape[2]
        return filled(n, D, lambda i, j: float(c[i // b, j // b, (i % b - j % b) % b]))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        c = blocks["c"]
        p, q, b = c.shape
        if b <= 2:
            # Two real frequencies, at least as many products as entries of W.
            return linear(x, self._materialize(blocks, n, sum(view.shape[-1] for view in x)))
        dtype = torch.promote_types(x[0].dtype, torch.float32)
        real, imaginary = to_frequencies(c.to(dtype)).permute(3, 2, 1, 0)  # (f, q, p) each
        rows = _spectra(padded(x, q * b).to(dtype), q, b)  # (f, 2, m, q)
        f, m = len(rows), rows.shape[2]
        # The product of complex numbers, as one of real matrices for each frequency.
        mixed = torch.bmm(rows[:, 0], torch.cat([real, imaginary], 2))
        mixed = torch.baddbmm(mixed, rows[:, 1], torch.cat([-imaginary, real], 2))  # (f, m, 2p)
        out = from_frequencies(mixed.view(f, m, 2, p).permute(1, 3, 0, 2).to(dtype), b).reshape(m, p * b)
        return cropped(out, n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        c = blocks["c"]
        return (c.square() * self._multiplicity(n, D).to(c)).sum()

    def padding(self, n: int, D: int) -> dict[str, BoolTensor]:
        """Return the entries of the last block that only cropped entries of W would show."""
        dead = self._multiplicity(n, D) == 0
        return {"c": cast(BoolTensor, dead)} if bool(dead.any()) else {}

    def _multiplicity(self, n: int, D: int) -> Tensor:
        """Return how often each entry of c occurs in the cropped W."""
        p, q, b = self.shapes(n, D)["c"]
        offset = torch.arange(b)
        count = torch.full((p, q, b), b)
        rows, columns = n - (p - 1) * b, D - (q - 1) * b
        count[-1] = diagonal_lengths(offset, rows, b) + diagonal_lengths(offset - b, rows, b)
        count[:, -1] = diagonal_lengths(offset, b, columns) + diagonal_lengths(offset - b, b, columns)
        count[-1, -1] = diagonal_lengths(offset, rows, columns) + diagonal_lengths(offset - b, rows, columns)
        return count


def _spectra(rows: Tensor, q: int, b: int) -> Tensor:
    """Return the real FFT of every block, real and imaginary parts, frequencies outermost: (m, q*b) -> (f, 2, m, q)."""
    m = rows.shape[0]
    if _as_matrix(rows, b):
        # One product leaves them in this order; after an FFT reordering takes longer than the transform.
        return (_fourier_matrix(rows.new_empty(b)).T @ rows.reshape(m * q, b).T).view(b // 2 + 1, 2, m, q)
    return to_frequencies(rows.view(m, q, b)).permute(2, 3, 0, 1)


def to_frequencies(signal: Tensor) -> Tensor:
    """Return the real and imaginary parts of the real FFT, (..., b) -> (..., b // 2 + 1, 2)."""
    if _as_matrix(signal, signal.shape[-1]):
        # Sizes in full: those of an empty batch cannot be inferred.
        return (signal @ _fourier_matrix(signal)).view(*signal.shape[:-1], signal.shape[-1] // 2 + 1, 2)
    return torch.view_as_real(torch.fft.rfft(signal))


def from_frequencies(spectrum: Tensor, b: int) -> Tensor:
    """Return the inverse of ``to_frequencies``, (..., b // 2 + 1, 2) -> (..., b)."""
    if _as_matrix(spectrum, b):
        matrix = _fourier_matrix(spectrum.new_empty(b))
        # Every frequency but the first, and the last for even b, counts twice: for itself and its conjugate.
        weight = torch.full_like(matrix, 2 / b)
        weight[:, :2] = 1 / b
        if b % 2 == 0:
            weight[:, -2:] = 1 / b
        return spectrum.reshape(*spectrum.shape[:-2], 2 * spectrum.shape[-2]) @ (matrix * weight).T
    signal: Tensor = torch.fft.irfft(torch.view_as_complex(spectrum.contiguous()), b)
    return signal


def _as_matrix(like: Tensor, b: int) -> bool:
    """Whether to multiply by the Fourier matrix: short signals, compilers without complex numbers, empty batches,
    which MKL refuses.
    """
    return b <= SHORT or torch.compiler.is_compiling() or not like.numel()


def _fourier_matrix(like: Tensor) -> Tensor:
    """Return (b, 2f) with cos(2 pi t k / b) and -sin(2 pi t k / b) alternating, b the last dimension of ``like``."""
    b = like.shape[-1]
    turns = torch.outer(torch.arange(b, device=like.device), torch.arange(b // 2 + 1, device=like.device)) % b
    angle = turns.to(like.dtype) * (2 * torch.pi / b)
    return torch.stack([angle.cos(), -angle.sin()], -1).view(b, -1)
