"""The base class of the operators in this package: it creates and counts parameters from a list of their matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log10, prod
from numbers import Real
from typing import Any, NamedTuple

import fusionkit
import torch
import torch.nn.functional as F
from fusionkit import FusionError
from fusionkit.errors import nearest
from fusionkit.fusion import check_size
from torch import Tensor, nn

from fusionkit_bilinear.functions import ACTIVATIONS, IN_PLACE, ODD, activation, moments

__all__ = ["Layer", "MultiplicativeFusion", "check_flag"]

#: ``max_bytes`` of the operators whose size grows with the product of the widths: 1 GiB.
MAX_BYTES = 2**30


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


class MultiplicativeFusion(fusionkit.Fusion):
    """Base class of the operators in this package.  n is free; by default it is the common width of the views.

    A subclass writes ``layers``, which returns its matrices; ``vectors``, if it has other parameters; ``draw``, which
    initializes all of them; and ``_fuse``.  Its ``__init__`` ends with ``self.create()``.  ``layers`` and ``vectors``
    are arithmetic only: they are called also when nothing is built.
    """

    # Set by ``keep_activations`` and ``keep_rates`` in operators that have these options.
    activ_input: str | None
    activ_output: str | None
    dropout_input: float
    dropout_pre_lin: float
    dropout_pre_norm: float
    dropout_output: float

    def layers(self) -> Layers:
        """Return lists of matrices by name, calculated from n, dims and options."""
        raise NotImplementedError(f"{type(self).__name__} should define layers.")

    def vectors(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the other parameters."""
        return {}

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the parameters so that the output has about the power of the views."""
        raise NotImplementedError(f"{type(self).__name__} should define draw.")

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
            fusionkit.Projection.size(layer.n, layer.widths, layer.fabrication, bias=layer.bias)
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
                    fusionkit.Projection(
                        layer.n, layer.widths, layer.fabrication, bias=layer.bias, index=index, **self._factory
                    )
                )
                index += 1
            self.add_module(name, modules)
        for name, shape in self.vectors().items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, **self._factory)))
        self.reset_parameters()

    def group(self, name: str) -> list[fusionkit.Projection]:
        """Return the projections of one list."""
        return list(getattr(self, name))

    def indices_to_fold(self, views: Sequence[int]) -> list[int]:
        """Return indices of views as a list, where the parameters of the other views are folded into others.

        Raises:
            FusionError: wrong indices, or an operator that owns no parameters.
        """
        self.flat_w()
        return self.check_views(views)

    def dense(self, project: fusionkit.Projection) -> tuple[Tensor, Tensor | None]:
        """Return copies of the matrix W (n, D) and the bias (n,) of a projection."""
        like = project.bias if project.bias is not None else next(self.parameters())
        bias = None if project.bias is None else project.bias.detach().clone()
        return project.matrix(like).detach().clone(), bias

    def activated(self, name: str, x: Sequence[Tensor], function: str | None) -> list[Tensor]:
        """Apply the projections of one list and an activation to the views, (..., n_i) -> (..., height)."""
        f, in_place = activation(function), IN_PLACE.get(function)
        out = []
        for project, view in zip(self.group(name), x, strict=True):
            inner = project([view])
            # In place: nothing else uses the product of a dense matrix, and its backward does not need it.
            out.append(in_place(inner) if in_place is not None and project.dense else f(inner))
        return out

    # ------------------------------------------------------------------ options

    def keep_activations(self, **names: str | None) -> None:
        """Set attributes for options that are the name of an activation, or None.

        Raises:
            FusionError: an activation is unknown.
        """
        for option, name in names.items():
            if name is not None and (not isinstance(name, str) or name not in ACTIVATIONS):
                raise FusionError(
                    f"{option} should be None or one of {', '.join(ACTIVATIONS)}; found {name!r}."
                    f"{nearest(str(name), ACTIVATIONS)}"
                )
            setattr(self, option, name)

    def keep_rates(self, **rates: Any) -> None:
        """Set attributes for dropout rates; if one is not 0, declare the traits that dropout implies.

        Raises:
            FusionError: a rate is not a number from 0 to below 1.
        """
        for option, rate in rates.items():
            if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= rate < 1:
                raise FusionError(f"{option} should be a number from 0 to below 1; found {rate!r}.")
            setattr(self, option, float(rate))
        if any(rates.values()):
            object.__setattr__(self, "traits", replace(self.traits, stochastic=True, train_eval_differ=True))

    def drop(self, x: Tensor, rate: float) -> Tensor:
        """Return ``x``; in training with dropout at this rate."""
        return F.dropout(x, rate, self.training) if rate else x

    def check_bytes(self, max_bytes: int | None, alternative: str, **entries: int) -> None:
        """Refuse too large sizes before memory is allocated.  On the meta device every size is allowed.

        Args:
            max_bytes: the most memory that parameters may take; None: no limit.
            alternative: what to do instead, for the message.
            entries: numbers of entries of other large tensors, such as a fabricated matrix, by name.

        Raises:
            FusionError: the parameters or one of these tensors take more; the message has l and the alternative.
        """
        if max_bytes is not None:
            check_size("max_bytes, the most that parameters may take,", max_bytes)
        if max_bytes is None or self.dims is None:
            return
        device, dtype = self._factory["device"], self._factory["dtype"] or torch.get_default_dtype()
        if (device or torch.get_default_device()).type == "meta":
            return
        l, held = self.calculate_l(), sum(entries.values())
        size = max(l, held) * dtype.itemsize
        if size > max_bytes:
            also = "".join(
                f" and a {what} of {written(number)} entries" for what, number in entries.items() if number > l
            )
            views = f"dims {list(self.dims)}" if len(self.dims) <= 16 else f"{len(self.dims)} views"
            raise FusionError(
                f"{self.name} should take at most max_bytes = {max_bytes} bytes; found {written(size)} bytes, for l = "
                f"{written(l)}{also} with {views} and n = {self.calculate_n()}: {alternative}."
            )

    # ------------------------------------------------------------------ initial values

    def draw_factors(
        self, factors: Sequence[fusionkit.Projection], count: int, generator: torch.Generator | None, name: str | None
    ) -> tuple[float, float]:
        """Draw projections whose results, after the activation ``name``, are the ``count`` factors of a product.

        1/count of the power of a factor comes from the views, the rest from the bias.  So about a third of the power
        of the product is linear in each view, for any number of factors; without bias all of it would be of order
        ``count``, heavy-tailed, and useless where one factor is near zero.  The sign of a bias is random if the
        activation is odd, else positive.

        Returns:
            Mean and mean square of the factors; the mean is 0 for random signs.
        """
        spread, offset = (1 / count) ** 0.5, (1 - 1 / count) ** 0.5
        for factor in factors:
            factor.reset_parameters(generator, gain=spread)
            if factor.bias is not None:
                with torch.no_grad():
                    if name in ODD:
                        factor.bias.normal_(generator=generator).sign_().mul_(offset)
                    else:
                        factor.bias.fill_(offset)
        mean, square = moments(name, offset, spread)
        return (0.0 if name in ODD else mean), square


def dense_projection(W: Tensor, bias: Tensor | None, dims: Sequence[int] | None = None) -> fusionkit.Projection:
    """Return a projection with this dense W (n, D) and bias (n,); ``dims`` are the widths of several views."""
    widths = [W.shape[1]] if dims is None else dims
    made = fusionkit.Projection(W.shape[0], widths, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(W.contiguous())
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


def output_gain(name: str | None) -> float:
    """Return the standard deviation of normal inputs for which the activation has about the mean square 1."""
    return float(moments(name)[1] ** -0.5)


def written(number: int) -> str:
    """Return a number in digits, or as a power of ten if it has more than 30."""
    return str(number) if number < 10**30 else f"about 10^{log10(number):.0f}"


def rows(x: Sequence[Tensor]) -> list[Tensor]:
    """Return the views as matrices, (..., n_i) -> (m, n_i)."""
    return [view.reshape(-1, view.shape[-1]) for view in x]


def check_flag(option: str, value: bool) -> bool:
    """Return a bool, or raise a ``FusionError``: Python would take a string such as "false" for true."""
    if not isinstance(value, bool):
        raise FusionError(f"{option} should be True or False; found {value!r}.")
    return value
