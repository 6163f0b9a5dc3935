"""A fabricated matrix with a bias, for operators that have several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit.core.fabrication import Fabrication
from fusionkit.core.factory import as_fabrication
from fusionkit.core.validation import check_dims, check_size
from fusionkit.errors import FusionError
from fusionkit.kernels.matmul import linear


class Projection(nn.Module):
    """``concat(x) W^T + b``, x: views (..., n_i) -> (..., n), with W (n, D) from a fabrication and b (n,).

    An operator builds one for each of its matrices, adds up ``Projection.size`` in ``calculate_l``, and calls
    ``reset_parameters`` of each in its own.  The blocks of W are parameters of this module in their natural shape
    (dense: ``weight``), so an external ``w`` replaces them too.

    Args:
        n: height of W.
        dims: widths of the views; W has D = sum(dims) columns.
        fabrication: as ``parameter_fabrication``: None (dense), a name, a mapping, a ``Fabrication``, ...
        bias: whether there is b.
        index: number of this matrix in the operator; it is added to the seed of the fabrication, so that the frozen
            parts of matrices of one size differ.
        device: of parameters and buffers.
        dtype: of parameters and buffers.

    Attributes:
        dense: whether W is the parameter ``weight``.

    Raises:
        FusionError: an option of the fabrication is out of range for (n, D).
    """

    weight: Tensor  # Only if dense.

    def __init__(
        self,
        n: int,
        dims: Sequence[int],
        fabrication: Any = None,
        *,
        bias: bool = True,
        index: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.n, self.dims = check_size("n, the height of W,", n), check_dims(dims)
        self.fabrication = as_fabrication(fabrication)
        seed = getattr(self.fabrication, "seed", None)
        if index and type(seed) is int:
            self.fabrication.__dict__["seed"] = self.fabrication._arguments["seed"] = seed + index
        self.dense = self.fabrication.is_dense
        self._blocks = create_blocks(self, self.fabrication, self.n, self.dims, {"device": device, "dtype": dtype})
        self.bias = nn.Parameter(torch.empty(self.n, device=device, dtype=dtype)) if bias else None

    @staticmethod
    def size(n: int, dims: Sequence[int], fabrication: Any = None, *, bias: bool = True) -> int:
        """Return the number of parameters of a projection of this size, without building it."""
        shapes = as_fabrication(fabrication).prepare(n, dims, device="meta").shapes
        return sum(map(prod, shapes.values())) + (n if bias else 0)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return ``concat(x) W^T + b``, x: views (..., n_i) -> (..., n)."""
        if self.dense:
            return linear(x, self.weight, bias=self.bias)
        out = self.fabrication.multiply(x, self._named_blocks(), self.n)
        return out if self.bias is None else out + self.bias

    def matrix(self, like: Tensor) -> Tensor:
        """Return W (n, D); a W without parameters has the dtype and the device of ``like``."""
        W = self.fabrication._materialize(self._named_blocks(), self.n, sum(self.dims))
        return W if self._blocks else W.to(like)

    def reset_parameters(self, generator: torch.Generator | None = None, *, gain: float = 1.0) -> None:
        """Draw the blocks so that W has mean square gain^2/D, set b to zero, and refill the frozen parts."""
        draw_blocks(self, self._blocks, self.fabrication, self.n, sum(self.dims), generator, gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Return the sizes, and whether there is a bias."""
        return f"n={self.n}, dims={list(self.dims)}, bias={self.bias is not None}"

    def _named_blocks(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._blocks}


def create_blocks(
    owner: nn.Module, fabrication: Fabrication, n: int, dims: Sequence[int], factory: Mapping[str, Any]
) -> tuple[str, ...]:
    """Prepare the fabrication for W (n, sum(dims)), and register its blocks as parameters of ``owner``.

    Returns:
        The names of the blocks.

    Raises:
        FusionError: an option is out of range for this size, or ``owner`` has an attribute with the name of a block.
    """
    shapes = fabrication.prepare(n, dims, **factory).shapes
    for block, shape in shapes.items():
        if hasattr(owner, block):
            raise FusionError(
                f"Block names of {fabrication} should not be attributes of the operator; found {block!r}."
            )
        owner.register_parameter(block, nn.Parameter(torch.empty(shape, **factory)))
    return tuple(shapes)


def draw_blocks(
    owner: nn.Module,
    names: Sequence[str],
    fabrication: Fabrication,
    n: int,
    D: int,
    generator: torch.Generator | None = None,
    gain: float = 1.0,
) -> None:
    """Draw the blocks of ``owner`` so that W has mean square gain^2/D, and refill the frozen parts from their seed."""
    fabrication.reset_frozen()
    blocks = [block for name in names if (block := owner._parameters[name]) is not None]
    if not blocks or blocks[0].is_meta:
        return
    with torch.no_grad():
        # A single block is filled in place; several are drawn as one w and copied.
        flat = torch.cat([block.reshape(-1) for block in blocks]) if len(blocks) > 1 else blocks[0].view(-1)
        fabrication.init_(flat, n, D, generator)
        if gain != 1:
            flat.mul_(gain ** (1 / fabrication.degree))
        if len(blocks) > 1:
            for block, piece in zip(blocks, fabrication.split(flat, n, D).values(), strict=True):
                block.copy_(piece)
