"""The outer product of the views, sketched through the FFT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from fusionkit import Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_flag, check_size
from torch import Tensor, nn

from fusionkit_bilinear.base import MultiplicativeFusion, output_gain
from fusionkit_bilinear.functions import activation, leveled, power_normalized, product

#: Between the seeds of two sketches; generators take 32 bits.
STRIDE = 0x9E3779B1


class MCB(MultiplicativeFusion):
    """`g(P_o (S_1 x_1 * ... * S_k x_k) + b_o)`, `*` the circular convolution; views (..., n_i) -> (..., n).

    The count sketch S_i has in column j the one entry s_i[j] = 1 or -1, in row h_i[j] of mm_dim, both random and fixed;
    so the convolution sketches the outer product.  It is a product of real Fourier transforms, in float32 for half
    precision.  P_o (n, mm_dim), b_o (n,); l = (mm_dim + 1)*n; buffers sketches.i.h, s (n_i).  With one view, a linear
    map of its sketch.  Source: Fukui et al., "Multimodal Compact Bilinear Pooling", 2016, algorithm 1, and section 3.2
    for the normalization.

    Args:
        mm_dim: width of the sketches.
        activ_output: g, by name; None: the identity.
        normalize: power and l2 normalization of the convolution.
        dropout_output: dropout rate of the result.
        seed: of the h_i and s_i.
        parameter_fabrication: how P_o is made.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    sketches: nn.ModuleList

    per_view = ("sketches",)
    traits = Traits(batch_independent=True, free_n=True, missing="skip", memory_factor=10)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        mm_dim: int = 16000,
        activ_output: str | None = None,
        normalize: bool = True,
        dropout_output: float = 0.0,
        seed: int = 0,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.mm_dim = check_size("mm_dim, the width of the sketches,", mm_dim)
        self.keep_activations(activ_output=activ_output)
        self.normalize = check_flag("normalize", normalize)
        self.keep_rates(dropout_output=dropout_output)
        self.seed = check_size("seed, of the sketches,", seed, minimum=0)
        self.parameter_fabrication = parameter_fabrication
        if self.dims is not None:
            self.sketches = nn.ModuleList(
                CountSketch(width, self.mm_dim, (self.seed, i), **self._factory) for i, width in enumerate(self.dims)
            )
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the defaults, an activation in place of the normalization, and three views."""
        return [
            {"dims": [4, 4], "n": 5, "mm_dim": 3, "seed": 1},
            {"dims": [3, 4], "n": 4, "mm_dim": 3, "activ_output": "relu", "normalize": False},
            {"dims": [3, 2, 3], "n": 4, "mm_dim": 5},
        ]

    def layers(self) -> Layers:
        """Return P_o."""
        return {"output": [Layer(self.calculate_n(), self.mm_dim, fabrication=self.parameter_fabrication)]}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw P_o so that the output has about the power of the views, and refill the sketches from the seed."""
        for sketch in self.sketches:
            sketch.reset_frozen()  # type: ignore[operator]
        # The convolution keeps the power of the outer product, n_1 * ... * n_k, spread over mm_dim entries.
        power = 1.0 if self.normalize else prod(self.resolve_dims())
        gain = output_gain(self.activ_output) * (self.mm_dim / power) ** 0.5
        self.group("output")[0].reset_parameters(generator, gain=gain)

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        wide = torch.promote_types(x[0].dtype, torch.float32)
        sketches = [sketch(view.to(wide)) for sketch, view in zip(self.sketches, x, strict=True)]
        if self.normalize:
            sketches, _ = leveled(sketches, x)
        if mask is not None:
            one = F.pad(torch.ones_like(sketches[0][..., :1]), (0, self.mm_dim - 1))
            sketches = [
                torch.where(column, sketch, one) for column, sketch in zip(mask.split(1, -1), sketches, strict=True)
            ]
        if len(sketches) == 1 or (not torch.compiler.is_compiling() and not sketches[0].numel()):
            z = product(sketches)  # One view; or no rows, which MKL does not transform.
        else:
            spectrum = product([torch.fft.rfft(sketch) for sketch in sketches])
            z = torch.fft.irfft(spectrum, self.mm_dim)
            if mask is not None:
                # A view alone is not transformed: the square root of the normalization would show the rounding.
                z = torch.where(mask.sum(-1, keepdim=True) > 1, z, self._alone(sketches, mask))
        if self.normalize:
            z = power_normalized(z)
        out = activation(self.activ_output)(self.group("output")[0]([z.to(x[0].dtype)]))
        return self.drop(out, self.dropout_output)

    _fuse_masked = _fuse

    def _alone(self, sketches: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Return the sketch of the present view of each row that has one; of others the sketch of 1, or anything."""
        out = sketches[0]
        for column, sketch in zip(mask.split(1, -1)[1:], sketches[1:], strict=True):
            out = torch.where(column, sketch, out)
        return out


class CountSketch(nn.Module):
    """`y[h[j]] += s[j] x[j]`, (..., width) -> (..., mm_dim); buffers h and s (width,) from the seeds."""

    h: Tensor
    s: Tensor

    def __init__(
        self, width: int, mm_dim: int, seeds: tuple[int, int], device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.width, self.mm_dim, self.seeds = width, mm_dim, seeds
        self.register_buffer("h", torch.empty(width, device=device, dtype=torch.int64))
        self.register_buffer("s", torch.empty(width, device=device, dtype=dtype))
        self.reset_frozen()

    def reset_frozen(self) -> None:
        """Draw h and s anew: on the CPU, so that they are the same on every device."""
        if self.h.is_meta:
            return
        seed, index = self.seeds
        generator = torch.Generator().manual_seed((seed + index * STRIDE) % 2**32)
        self.h.copy_(torch.randint(self.mm_dim, (self.width,), generator=generator, device="cpu"))
        self.s.copy_(torch.randint(2, (self.width,), generator=generator, device="cpu") * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sketch, (..., width) -> (..., mm_dim)."""
        return x.new_zeros(*x.shape[:-1], self.mm_dim).index_add(-1, self.h, x * self.s.to(x.dtype))
