"""A matrix that is constant along its diagonals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrication import Fabrication, cropped, padded
from fusionkit.fabrications._reference import filled
from fusionkit.kernels.matmul import linear
from fusionkit.kernels.planning import Effort


class Toeplitz(Fabrication):
    """``W_ij = c[i - j + D - 1]``; block c (n + D - 1), l = n + D - 1.

    The product is a part of the convolution with c, computed by the real FFT.  Source: Golub and Van Loan, "Matrix
    Computations", 4th edition, section 4.8.
    """

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the diagonals, from the upper right corner of W to the lower left one."""
        return {"c": (n + D - 1,)}

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        length = fast_length(n + D - 1)
        return Effort(0, D + n + 0.375 * length * (3 + log2(length)))

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return diagonals(blocks["c"], n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        return filled(n, D, lambda i, j: float(w[i - j + D - 1]))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        D = sum(view.shape[-1] for view in x)
        # Compilers know no complex numbers, and MKL transforms no empty batch.
        if torch.compiler.is_compiling() or not x[0].numel():
            return linear(x, self._materialize(blocks, n, D))
        dtype = torch.promote_types(x[0].dtype, torch.float32)
        # The D - 1 leading entries of the convolution are not needed, hence may be those that wrap around.
        length = fast_length(n + D - 1)
        # Divided by the length before the products, which could be out of range, rather than after.
        rows = torch.fft.rfft(padded(x, D).to(dtype), length, norm="forward")
        spectrum = rows * torch.fft.rfft(blocks["c"].to(dtype), length)
        return cropped(torch.fft.irfft(spectrum, length, norm="forward")[:, D - 1 :], n, x[0])

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        c = blocks["c"]
        return c.square() @ diagonal_lengths(torch.arange(1 - D, n, device=c.device), n, D).to(c.dtype)


def diagonals(c: Tensor, rows: int, columns: int) -> Tensor:
    """Return the Toeplitz matrices of c, (..., rows + columns - 1) -> (..., rows, columns)."""
    if rows > columns:
        return diagonals(c.flip(-1), columns, rows).mT
    # As many copies of c as rows, one entry longer than they are read: each next one starts one entry later.
    length = rows + columns - 1
    copies = F.pad(c.flip(-1).unsqueeze(-2).expand(*c.shape[:-1], rows, length), (0, 1))
    shifted: Tensor = copies.flatten(-2)[..., : rows * length].unflatten(-1, (rows, length))
    return shifted[..., rows - 1 :]


def diagonal_lengths(offset: Tensor, rows: int, columns: int) -> Tensor:
    """Return how many entries with i - j = offset a matrix (rows, columns) has."""
    return ((columns + offset).clamp(max=rows) - offset.clamp(min=0)).clamp(min=0)


def fast_length(length: int) -> int:
    """Return the least power of two times 1, 3, 5, 9 or 15 from ``length`` on, for a fast FFT."""
    return min(odd << max(0, (-(-length // odd) - 1).bit_length()) for odd in (1, 3, 5, 9, 15))
