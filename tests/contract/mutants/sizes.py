"""Wrong in n, l or the shape of the output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit.fusion import Traits
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from tests.contract.mutants.right import Mix, Thin
from tests.contract.mutants.table import caught_by


@caught_by("n_matches_output")
class WideN(Mix):
    """States the width of all views together."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return sum(self.resolve_dims(dims))

    def create(self) -> None:
        widths = self.resolve_dims()
        self.weight = nn.Parameter(torch.empty(len(widths), widths[0], **self._factory))


@caught_by("l_matches_parameters")
class ListedFactors(Mix):
    """Keeps its parameters in a list, where torch does not see them."""

    def create(self) -> None:
        self.factors = [torch.ones(width, **self._factory).requires_grad_() for width in self.resolve_dims()]

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([view * factor for view, factor in zip(x, self.factors, strict=True)]).sum(0)


@caught_by("l_matches_parameters")
class CountsTrainable(Mix):
    """Forgets the parameters that are frozen."""

    def calculate_l(self) -> int:
        return sum(parameter.numel() for _, parameter in self._own_parameters() if parameter.requires_grad)


@caught_by("l_matches_parameters")
class CountsEverything(Mix):
    """Counts the parameters of the pre- and postprocessing as its own."""

    def calculate_l(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


@caught_by("l_matches_parameters")
class MiscountedBlocks(Thin):
    """States one parameter too few."""

    def calculate_l(self, n: int, D: int) -> int:
        return n + D - 1


@caught_by("forward_shape")
class Squeezes(Mix):
    """Loses the leading dimension of a batch of one row."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.squeeze(0) if out.dim() > 1 else out


@caught_by("leading_dims")
class SecondDimension(Mix):
    """Takes the second dimension for the last one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out - out.mean(min(1, out.dim() - 1), keepdim=True)


@caught_by("empty_batch")
class NeedsRows(Mix):
    """Takes a maximum over the batch."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out + 0 * out.detach().abs().max()


@caught_by("zero_views")
class NothingIsZero(Mix):
    """Returns zeros for no views."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        return super().forward(x, w, device, mask) if x else torch.zeros(1, self.calculate_n())


@caught_by("n_pure")
class StoresN(Mix):
    """Keeps the width that was asked for last."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        self.last = self.resolve_equal_dims(dims)
        return self.last


@caught_by("n_pure")
class FloatN(Mix):
    """Returns the width as another type."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return torch.tensor(self.resolve_equal_dims(dims))  # type: ignore[return-value]


@caught_by("n_explicit_and_inferred")
class BelievesN(Mix):
    """Takes the given n for the width of its output."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return self.n or super().calculate_n(dims)


@caught_by("n_explicit_and_inferred")
class OnlyOneN(Mix):
    """Declares n a free choice, and accepts one."""

    traits = Traits(linear=True, batch_independent=True, free_n=True)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4, 4, 4], "n": 4}


@caught_by("n_invalid_dims")
class TakesAnyDims(Mix):
    """Does not validate the dims that it is asked about."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return int((dims or self.resolve_dims())[0])


@caught_by("l_pure")
class StoresL(Mix):
    """Keeps the size that it computed."""

    def calculate_l(self) -> int:
        self.size = super().calculate_l()
        return self.size


@caught_by("l_pure")
class StoresBlockSize(Thin):
    """Keeps the size that was asked for first; the next one is wrong."""

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        self.sizes = getattr(self, "sizes", (n, D))
        return {"u": self.sizes[:1], "v": self.sizes[1:]}


@caught_by("l_zero_iff_parameter_free")
class AlwaysOwns(Mix):
    """Ignores require_parameters."""

    def create(self) -> None:
        self.require_parameters = True
        super().create()


@caught_by("l_every_fabrication")
class ThinksDense(ParameterizedConcatenation):
    """``concat(A) W^T``, with the number of parameters of a dense W."""

    def calculate_l(self) -> int:
        return self.calculate_n() * sum(self.resolve_dims())


@caught_by("l_property")
class WrongFromEight(Mix):
    """Miscounts widths that no example has."""

    def calculate_l(self) -> int:
        return sum(width + (width > 7) for width in self.resolve_dims())
