"""A frozen network that makes W from a short vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fusionkit.fabrication import Fabrication, gaussians
from fusionkit.fabrications._reference import dot, filled
from fusionkit.fabrications.lowrank_kronecker import product_norm
from fusionkit.fusion import check_size
from fusionkit.kernels.matmul import linear
from fusionkit.kernels.planning import Effort

#: Slope of the hidden units below zero: positive, so that every parameter always has a gradient.
SLOPE = 0.2


class Hypernet(Fabrication):
    """``W = A diag(σ(w H)) B``: a frozen network with one hidden layer of h units; block w (l), l given.

    H (l, h), A (n, h) and B (h, D) are Gaussian buffers drawn from ``seed``.  Hidden unit k contributes the matrix
    ``A[:, k] B[k, :]`` of rank one, so that no output layer of n*D*h weights exists.  σ is the leaky ReLU, hence W
    scales with w.
    Source: Ha et al., "HyperNetworks", 2017, section 3.1.

    Args:
        l: number of parameters.
        h: number of hidden units, which bounds the rank of W; None means l, with fewer w would be redundant.
        seed: of the frozen network.
    """

    def __init__(self, l: int = 64, h: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.l = check_size("l, the number of parameters of the hypernet,", l)
        self.h = self.l if h is None else check_size("h, the number of hidden units of the hypernet,", h)
        self.seed = check_size("seed, of the frozen hypernet,", seed, minimum=0)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return the default and a small network."""
        return [{}, {"l": 5, "h": 3, "seed": 1}]

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the input of the network."""
        return {"w": (self.l,)}

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the layers of the network."""
        return {"H": (self.l, self.h), "A": (n, self.h), "B": (self.h, D)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        # Scaled so that w of unit variance gives W of mean square near 1/D, and half precision keeps its digits.
        sums = {"A": 1, "B": self.h * D}
        layers = gaussians(self.seed, self.frozen_shapes(n, D))
        return {name: layer / sums.get(name, len(layer)) ** 0.5 for name, layer in layers.items()}

    def _hidden(self, w: Tensor, layers: Mapping[str, Tensor]) -> Tensor:
        """Return the weights of the h matrices of rank one, (l,) -> (h,)."""
        return F.leaky_relu(w @ layers["H"], SLOPE)

    def effort(self, n: int, D: int) -> Effort:
        """Return what the product without W costs."""
        return Effort(self.h * (n + D), setup=self.h * n)

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        layers = self.frozen(n, D, blocks["w"])
        return layers["A"] * self._hidden(blocks["w"], layers) @ layers["B"]

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) of the parameters (l,), by loops over the definition."""
        H, A, B = self.frozen(n, D, w).values()
        hidden = [unit if (unit := dot(w, column)) >= 0 else SLOPE * unit for column in H.T]
        return filled(n, D, lambda i, j: dot(A[i], hidden, B[:, j]))

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        layers = self.frozen(n, sum(view.shape[-1] for view in x), blocks["w"])
        return F.linear(linear(x, layers["B"]), layers["A"] * self._hidden(blocks["w"], layers))

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        layers = self.frozen(n, D, blocks["w"])
        return product_norm(layers["A"] * self._hidden(blocks["w"], layers), layers["B"])
