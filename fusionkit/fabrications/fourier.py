"""A matrix with few frequencies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import cos, log2, pi, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrication import Fabrication
from fusionkit.fabrications._options import limited
from fusionkit.fabrications._reference import dot, filled
from fusionkit.fusion import check_size
from fusionkit.kernels.matmul import linear

#: One of the FFT's operations takes about as long as this many multiply-adds of a matrix product.
FFT_COST = 16


class Fourier(Fabrication):
    """``W = Re ifft2(S)``, S (n, D) zero but for ``S[u_k, v_k] = f_k``, 1 <= k <= l; block f (l).

    ``W_ij = sum_k f_k cos(2 pi (u_k i / n + v_k j / D)) / sqrt(n D)``: ifft2 is the orthonormal inverse Fourier
    transform, which keeps f of the order of 1.  The frequencies are drawn from ``seed`` without replacement, of each
    pair (u, v), (-u, -v) one at most, since their real parts coincide; they are the buffer ``frequencies`` (2, l).
    Source: Gao et al., "Parameter-Efficient Fine-Tuning with Discrete Fourier Transform", 2024, equations 2 to 4.

    Args:
        l: number of frequencies, at most the number of those pairs, about n*D/2; None means at most 64.
        seed: of the frequencies.
    """

    frozen_dtypes = {"frequencies": torch.int64}

    def __init__(self, l: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.l = None if l is None else check_size("l, the number of frequencies of fourier,", l)
        self.seed = check_size("seed, of the frequencies of fourier,", seed, minimum=0)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and three frequencies."""
        return [{}, {"l": 3, "seed": 1}]

    def count(self, n: int, D: int) -> int:
        """Return l, or the default for this size.

        Raises:
            FusionError: l is greater than the number of frequencies that differ in their real part.
        """
        what, limit = "l, the number of frequencies of fourier,", "the number of those that differ in their real part"
        return limited(what, self.l, 64, limit, _half_plane(n, D), n, D)

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the amplitudes."""
        return {"f": (self.count(n, D),)}

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the frequencies, u in the first row and v in the second."""
        return {"frequencies": (2, self.count(n, D))}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        k = torch.randperm(_half_plane(n, D), generator=generator, device="cpu")[: self.count(n, D)]
        # Rows 0 and n/2 mirror themselves: of them the columns up to D/2; of the others the rows below n/2.
        half = D // 2 + 1
        own = (2 - n % 2) * half
        u = torch.where(k < own, k // half * (n // 2), 1 + (k - own) // D)
        v = torch.where(k < own, k % half, (k - own) % D)
        return {"frequencies": torch.stack([u, v])}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        f = blocks["f"]
        frequencies = self.frozen(n, D, f)["frequencies"]
        if 2 * len(f) <= FFT_COST * log2(max(2, n * D)):
            U, V = self._waves(f, frequencies, n, D)
            return U @ V
        u, v = frequencies
        dtype = torch.promote_types(f.dtype, torch.float32)
        spectrum = f.new_zeros(n * D, dtype=dtype).scatter(0, u * D + v, f.to(dtype)).view(n, D)
        W: Tensor = torch.fft.ifft2(spectrum, norm="ortho").real
        return W.to(f.dtype)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        u, v = self.frozen(n, D, w)["frequencies"].tolist()

        def entry(i: int, j: int) -> float:
            turns = (2 * pi * (a * i / n + b * j / D) for a, b in zip(u, v, strict=True))
            return dot(w, [cos(turn) for turn in turns]) / sqrt(n * D)

        return filled(n, D, entry)

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        D = sum(view.shape[-1] for view in x)
        f = blocks["f"]
        if 2 * len(f) * (n + D) > n * D:
            return linear(x, self._materialize(blocks, n, D))
        U, V = self._waves(f, self.frozen(n, D, f)["frequencies"], n, D)
        return F.linear(linear(x, V), U)

    def _waves(self, f: Tensor, frequencies: Tensor, n: int, D: int) -> tuple[Tensor, Tensor]:
        """Return U (n, 2l) and V (2l, D) with W = U V: cos(a + b) = cos a cos b - sin a sin b."""
        dtype = torch.promote_types(f.dtype, torch.float32)
        u, v = frequencies
        a, b = _angles(u, n, dtype), _angles(v, D, dtype)
        amplitude = f.to(dtype) / (n * D) ** 0.5
        U = torch.cat([a.cos() * amplitude[:, None], a.sin() * -amplitude[:, None]]).T
        return U.to(f.dtype), torch.cat([b.cos(), b.sin()]).to(f.dtype)

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        f = blocks["f"]
        u, v = self.frozen(n, D, f)["frequencies"]
        # A frequency that mirrors itself keeps all of its power, the others share it with the mirrored one.
        own = (2 * u % n == 0) & (2 * v % D == 0)
        shares: Tensor = (1 + own.to(f.dtype)) / 2
        return f.square() @ shares


def _half_plane(n: int, D: int) -> int:
    """Return the number of frequencies (u, v) of an (n, D) transform that differ in the real part of their wave."""
    return (2 - n % 2) * (D // 2 + 1) + (n - 1) // 2 * D


def _angles(frequency: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return 2 pi frequency t / size for t < size, (l,) -> (l, size), reduced to one turn before it is rounded."""
    turns = frequency[:, None].double() * (torch.arange(size, dtype=torch.float64, device=frequency.device) / size)
    return (turns.frac() * (2 * torch.pi)).to(dtype)
