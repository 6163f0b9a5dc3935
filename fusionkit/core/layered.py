"""Operators with several matrices: one list of them says which parameters to create, count and restrict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fusionkit.core.fusion import Fusion
from fusionkit.core.projection import Projection


class Layer(NamedTuple):
    """One matrix W (n, D), with a bias or without.

    Attributes:
        n: height of W.
        dims: width of W, or the widths of several views, whose sum it is.
        bias: whether there is a bias (n,).
        fabrication: fabrication of W; None: dense.
    """

    n: int
    dims: int | tuple[int, ...]
    bias: bool = True
    fabrication: Any = None

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths as a tuple."""
        return (self.dims,) if isinstance(self.dims, int) else self.dims


Layers = Mapping[str, Sequence[Layer]]


class LayeredFusion(Fusion):
    """Base class of operators with several matrices.  n is free; by default it is the common width of the views.

    A subclass writes ``layers``, which returns its matrices; ``vectors``, if it has other parameters; and ``_fuse``.
    Its ``__init__`` ends with ``self.create()``.  Each list of ``layers`` becomes a ``ModuleList`` of ``Projection``.
    ``layers`` and ``vectors`` are arithmetic only: they are called also when nothing is built.
    """

    #: Names of the lists in which a matrix multiplies all views and also has a group of rows for each view.
    rows_per_view: ClassVar[tuple[str, ...]] = ()

    def layers(self) -> Layers:
        """Return lists of matrices by name, calculated from n, dims and options."""
        raise NotImplementedError(f"{type(self).__name__} should define layers.")

    def vectors(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the other parameters."""
        return {}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw every matrix with mean square 1 / width, and set biases and vectors to 0."""
        for name in self.layers():
            for project in self.group(name):
                project.reset_parameters(generator)
        for name in self.vectors():
            nn.init.zeros_(self.get_parameter(name))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters again; does nothing on the meta device."""
        if self.dims is not None and not any(parameter.is_meta for parameter in self.parameters()):
            self.draw(generator)

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the given n, or the common width of the views."""
        return self.resolve_free_n(dims)

    def calculate_l(self) -> int:
        """Return the number of parameters of all matrices and vectors."""
        self.resolve_dims()
        matrices = sum(
            Projection.size(layer.n, layer.widths, layer.fabrication, bias=layer.bias)
            for group in self.layers().values()
            for layer in group
        )
        return matrices + sum(prod(shape) for shape in self.vectors().values())

    def create(self) -> None:
        """Create the parameters in ``layers`` (one ``ModuleList`` per name) and ``vectors``, and draw them."""
        if self.dims is None:
            return
        index = 0
        for name, group in self.layers().items():
            modules = nn.ModuleList()
            for layer in group:
                modules.append(
                    Projection(layer.n, layer.widths, layer.fabrication, bias=layer.bias, index=index, **self._factory)
                )
                index += 1
            self.add_module(name, modules)
        for name, shape in self.vectors().items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, **self._factory)))
        self.reset_parameters()

    def group(self, name: str) -> list[Projection]:
        """Return the projections of one list."""
        return list(getattr(self, name))

    def each(self, name: str, x: Sequence[Tensor]) -> list[Tensor]:
        """Apply the projections of one list, one per view, x: k views (..., n_i) -> k tensors (..., height)."""
        return [project([view]) for project, view in zip(self.group(name), x, strict=True)]

    # ------------------------------------------------------------------ restriction

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views; a matrix of all views becomes dense, and if it was not, so do the others.

        Lists with a matrix per view are named in ``per_view``.

        Raises:
            FusionError: wrong indices; a dense matrix is needed and the operator owns no parameters.
        """
        k, layers = len(self.resolve_dims()), self.layers()
        joined = [name for name, group in layers.items() if any(len(layer.widths) == k > 1 for layer in group)]
        if not joined:
            return super().restrict(views)
        kept = self.indices_to_fold(views)
        parts = {name: nn.ModuleList(self.of_views(one, kept, name) for one in self.group(name)) for name in joined}
        if all(layer.fabrication is None for name in joined for layer in layers[name]):
            return self.restricted(views, parts=parts)
        for name, group in layers.items():
            modules, each = self.group(name), len(group) // k
            if name in self.per_view:
                modules = [modules[i * each + j] for i in kept for j in range(each)]
            if name not in joined and any(layer.fabrication is not None for layer in group):
                parts[name] = nn.ModuleList(dense_projection(*self.dense(project)) for project in modules)
        return self.restricted(views, parts=parts, parameter_fabrication=None)

    def of_views(self, project: Projection, views: Sequence[int], name: str) -> Projection:
        """Return a dense copy of a projection of all views in the list ``name``, with what belongs to these views."""
        W, bias = self.dense(project)
        columns = W.split(project.dims, 1)
        W = torch.cat([columns[i] for i in views], 1)
        if name in self.rows_per_view:
            W = W.unflatten(0, (len(project.dims), -1))[list(views)].flatten(0, 1)
            bias = None if bias is None else bias.unflatten(0, (len(project.dims), -1))[list(views)].flatten()
        return dense_projection(W, bias, [project.dims[i] for i in views])

    def indices_to_fold(self, views: Sequence[int]) -> list[int]:
        """Return indices of views as a list, where the parameters of the other views are folded into others.

        Raises:
            FusionError: wrong indices, or an operator that owns no parameters.
        """
        self.flat_w()
        return self.check_views(views)

    def dense(self, project: Projection) -> tuple[Tensor, Tensor | None]:
        """Return copies of the matrix W (n, D) and the bias (n,) of a projection."""
        own = [*self.parameters(), *self.buffers(), torch.empty(0, **self._factory)]
        like = own[0] if project.bias is None else project.bias
        bias = None if project.bias is None else project.bias.detach().clone()
        return project.matrix(like).detach().clone(), bias


def dense_projection(W: Tensor, bias: Tensor | None, dims: Sequence[int] | None = None) -> Projection:
    """Return a projection with this dense W (n, D) and bias (n,); ``dims`` are the widths of several views."""
    widths = [W.shape[1]] if dims is None else dims
    made = Projection(W.shape[0], widths, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(W.contiguous())
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made
