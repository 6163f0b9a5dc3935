"""Products of pairs of views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import prod
from typing import Any, Unpack

import torch
from fusionkit import DimsError, Fusion, FusionError, Traits
from fusionkit.fusion import FusionOptions, Layer, Layers, check_choice, dense_projection
from torch import Tensor, nn

from fusionkit_bilinear.base import MAX_BYTES, MultiplicativeFusion, rows
from fusionkit_bilinear.functions import contract

#: The values of the option ``form``.
FORMS = ("matrix", "vector", "scalar")


class MultiplicativeInteraction(MultiplicativeFusion):
    """`sum_{i<j} x_i W_ij x_j + sum_i U_i x_i + b`, views (..., n_i) -> (..., n).

    b (n,) is a bias.  In the form "matrix" every entry of the output has a matrix (n_i, n_j) of its own: W_ij is kept
    as (n, n_i*n_j), and l = n*(sum_{i<j} n_i*n_j + D + 1).  In the forms "vector", `(W_ij x_j) ∘ x_i` with W_ij (n,
    n_j), and "scalar", `(w_ij · x_j) x_i` with w_ij (n_j,), a view scales those before it, entry by entry or as a
    whole: the views but the last have the width n, and U_i is a vector v_i (n,) or a number v_i but for the last view.
    l = n*(sum_{i<j} n_j + k-1 + n_k + 1), or sum_{i<j} n_j + k-1 + n*(n_k + 1).  Two views are the paper's case; one
    view is a linear map.  Source: Jayakumar et al., "Multiplicative Interactions and Where to Find Them", 2020,
    equation 1 and section 3, with x = x_1 and z = x_2.

    Args:
        form: "matrix", "vector" or "scalar".
        parameter_fabrication: how the W_ij ("matrix", "vector") and [U_1, ..., U_k] are made.
        max_bytes: limit for the parameters, and in the form "matrix" for each W_ij; None: no limit.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.

    Raises:
        DimsError: in the forms "vector" and "scalar", a view other than the last does not have the width n.
        FusionError: the parameters take more than ``max_bytes``.
    """

    scales: Tensor

    traits = Traits(batch_independent=True, free_n=True, missing="neutral", order_in_k=2)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        form: str = "matrix",
        parameter_fabrication: Any = None,
        max_bytes: int | None = MAX_BYTES,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.form = check_choice("form", form, FORMS)
        self.parameter_fabrication = parameter_fabrication
        if form != "matrix":
            self.declare_traits(free_n=False)
            self.check_widths()
        self.max_bytes = max_bytes
        self.check_bytes(
            max_bytes,
            "take mlb or lowrank_tensor_fusion, whose l grows with the sum of the widths, or narrower views",
            W_ij=self.largest_pair(),
        )
        self.create()

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two and three views in the form "matrix", and the other forms."""
        return [
            {"dims": [4, 4], "n": 5},
            {"dims": [3, 2, 4], "n": 3},
            {"dims": [4, 3], "form": "vector"},
            {"dims": [3, 3, 2], "form": "scalar"},
        ]

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the given n, or the common width of the views; in the other forms that of the first of several."""
        if self.form == "matrix":
            return super().calculate_n(dims)
        widths = self.resolve_dims(dims)
        return widths[0] if len(widths) > 1 or not self._n_given or self.n is None else self.n

    def check_widths(self) -> None:
        """Raise a ``DimsError`` if a view that is scaled does not have the width n."""
        if self.dims is None:
            return
        n = self.n if self.n is not None else self.dims[0]
        for i, width in enumerate(self.dims[:-1]):
            if width != n:
                raise DimsError(
                    f"View {i} should have the width n = {n}, since the form {self.form!r} scales it; found {width}: "
                    "take form='matrix', which admits all widths."
                )

    def largest_pair(self) -> int:
        """Return the number of entries of the largest W_ij in the form "matrix", which builds it of its parameters."""
        if self.dims is None or self.form != "matrix" or len(self.dims) < 2:
            return 0
        return self.calculate_n() * prod(sorted(self.dims)[-2:])

    def layers(self) -> Layers:
        """Return the W_ij, j running fastest, and the U_i in one matrix."""
        n, dims, made = self.calculate_n(), self.resolve_dims(), self.parameter_fabrication
        pairs = [(dims[i], dims[j]) for i in range(len(dims)) for j in range(i + 1, len(dims))]
        if self.form == "matrix":
            return {"pairs": [Layer(n, a * b, False, made) for a, b in pairs], "sum": [Layer(n, dims, True, made)]}
        height, of_pair = (n, made) if self.form == "vector" else (1, None)
        return {"pairs": [Layer(height, b, False, of_pair) for _, b in pairs], "sum": [Layer(n, dims[-1:], True, made)]}

    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Return the v_i, in one tensor."""
        scaled = len(self.resolve_dims()) - 1
        if self.form == "matrix" or not scaled:
            return {}
        return {"scales": (scaled, self.calculate_n() if self.form == "vector" else 1)}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the terms of first and of second order have equal power, that of the views."""
        pairs, (total,) = self.group("pairs"), self.group("sum")
        scales = self._parameters.get("scales")
        parts = (1 if not pairs else 2) + (scales is not None)
        for pair in pairs:
            pair.reset_parameters(generator, gain=(parts * len(pairs)) ** -0.5)
        total.reset_parameters(generator, gain=parts**-0.5)
        if scales is not None:
            with torch.no_grad():
                scales.normal_(generator=generator).mul_((parts * scales.shape[0]) ** -0.5)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        pairs, (total,) = self.group("pairs"), self.group("sum")
        k, free = len(x), self.form == "matrix"
        out: Tensor = total(x) if free else total(x[-1:])
        views = rows(x) if free else x
        of_pairs = iter(pairs)
        for i in range(k - 1):
            if free:
                for j in range(i + 1, k):
                    out = out + contract(next(of_pairs).matrix(x[0]), [views[i], views[j]]).view(out.shape)
            else:
                scale = self.scales[i]
                for j in range(i + 1, k):
                    scale = scale + next(of_pairs)([views[j]])
                out = out + scale * x[i]
        return out

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views, whose matrices are dense.

        Raises:
            FusionError: wrong indices; in the forms "vector" and "scalar" also views in another order.
        """
        kept, dims = self.indices_to_fold(views), self.resolve_dims()
        if self.form != "matrix" and kept != sorted(kept):
            raise FusionError(f"views should be in ascending order for the form {self.form!r}; found {kept}.")
        k, n = len(dims), self.calculate_n()
        place = {pair: at for at, pair in enumerate(combinations(range(k), 2))}
        pairs = nn.ModuleList()
        for i, j in combinations(kept, 2):
            W, _ = self.dense(self.group("pairs")[place[min(i, j), max(i, j)]])
            pairs.append(dense_projection(W if i < j else W.view(n, dims[j], dims[i]).mT.flatten(1), None))
        U, b = self.dense(self.group("sum")[0])
        parts: dict[str, Any] = {"pairs": pairs}
        if self.form == "matrix":
            columns = U.split(dims, 1)
            U = torch.cat([columns[i] for i in kept], 1)
        elif kept[-1] < k - 1:
            U = torch.diag(self.scales.detach()[kept[-1]].expand(n))
        if self.form != "matrix" and len(kept) > 1:
            parts["scales"] = nn.Parameter(self.scales.detach()[kept[:-1]].clone())
        widths = [dims[i] for i in (kept if self.form == "matrix" else kept[-1:])]
        parts["sum"] = nn.ModuleList([dense_projection(U, b, widths)])
        return self.restricted(views, parts=parts, parameter_fabrication=None)
