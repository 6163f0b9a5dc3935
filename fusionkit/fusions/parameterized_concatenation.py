"""The parameterized concatenation, whose matrix may be fabricated from few parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from fusionkit.core.projection import create_blocks, draw_blocks
from fusionkit.fabrication import as_fabrication
from fusionkit.fusion import Fusion, FusionOptions, Traits


class ParameterizedConcatenation(Fusion):
    """``(A_1 ⊔ A_2 ⊔ ... ⊔ A_k) W^T`` with W of shape (n, D), ^T for transposed; views (..., n_i) -> (..., n).

    l = n*D for the dense W, else ``calculate_l`` of the fabrication.  The blocks of w are parameters in their natural
    shape (dense: ``weight`` (n, D)).  Source: Zhang, "RPN 2: On Interdependence Function Learning Towards Unifying and
    Advancing CNN, RNN, GNN, and Transformer", 2024, section on data fusion functions.

    Args:
        parameter_fabrication: how W is made: None (dense), a registered name, a mapping such as ``{"name": "lowrank",
            "r": 8}``, a ``Fabrication``, or a callable object with ``calculate_l(n=, D=)`` and
            ``__call__(n=, D=, w=, device=)``.

    Raises:
        DimsError: ``n`` is missing and the widths differ.
        FusionError: an option of the fabrication is out of range for (n, D).
    """

    traits = Traits(linear=True, batch_independent=True, free_n=True, missing="neutral")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        parameter_fabrication: Any = None,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.fabrication = as_fabrication(parameter_fabrication)
        self._blocks: tuple[str, ...] = ()
        if self.dims is not None:
            self._blocks = create_blocks(self, self.fabrication, self.calculate_n(), self.dims, self._factory)
            self.reset_parameters()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return dense and low-rank matrices over equal, unequal and prime widths."""
        return [
            {"dims": [4, 4]},
            {"dims": [3, 1, 7], "n": 5},
            {"dims": [6, 5], "n": 4, "parameter_fabrication": {"name": "lowrank", "r": 2}},
        ]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the given n, or the common width of the views."""
        return self.resolve_free_n(dims)

    def calculate_l(self) -> int:
        """Return the number of parameters of the fabrication for (n, D)."""
        return self.fabrication.calculate_l(self.calculate_n(), sum(self.resolve_dims()))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the blocks so that W has mean square 1/D, and refill the frozen parts from their seed."""
        if self.dims is not None:
            draw_blocks(self, self._blocks, self.fabrication, self.calculate_n(), sum(self.dims), generator)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        # nn.Module.__getattr__ is slow with one row; only parametrized and pruned blocks need it.
        parameters, blocks = self._parameters, {}
        for name in self._blocks:
            block = parameters.get(name)
            blocks[name] = getattr(self, name) if block is None else block
        fabrication: Any = self._modules["fabrication"]
        multiply = fabrication._project if fabrication._break_even is None else fabrication.multiply
        return multiply(x, blocks, self.n or self.calculate_n())  # type: ignore[no-any-return]

    def fold(self) -> ParameterizedConcatenation:
        """Return an equal operator whose W is dense, for faster inference; it owns a copy of W.

        Raises:
            FusionError: the operator owns no parameters, or has no dims.
        """
        return self.restrict(range(len(self.resolve_dims())))

    def restrict(self, views: Sequence[int]) -> ParameterizedConcatenation:
        """Return the operator on these views: its W is dense, a copy of their columns.

        Raises:
            FusionError: wrong indices, or an operator that owns no parameters or has no dims.
        """
        indices, dims = self.check_views(views), self.resolve_dims()
        with torch.no_grad():
            columns = self._matrix().split(dims, 1)
            W = torch.cat([columns[i] for i in indices], 1)
            options = {"parameter_fabrication": None, "device": W.device, "dtype": W.dtype}
            made = self._with_views(indices, options)
            made.get_parameter("weight").copy_(W)
        return self.surround(made, indices)

    def _matrix(self) -> Tensor:
        """Return W (n, D)."""
        n, D = self.calculate_n(), sum(self.resolve_dims())
        l = self.fabrication.calculate_l(n, D)
        return self.fabrication.materialize(self.flat_w()[:l], n, D)

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        """Multiply a float64 concatenation by the materialized W."""
        return torch.cat([view.double() for view in x], -1) @ self._matrix().double().T
