"""The base class of the operators in this package: the options that several of them have, and their initial values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10
from numbers import Real
from typing import Any

import fusionkit
import torch
import torch.nn.functional as F
from fusionkit import FusionError
from fusionkit.errors import nearest
from fusionkit.fusion import LayeredFusion, check_size
from torch import Tensor

from fusionkit_bilinear.functions import ACTIVATIONS, IN_PLACE, ODD, activation, moments

#: ``max_bytes`` of the operators whose size grows with the product of the widths: 1 GiB.
MAX_BYTES = 2**30


class MultiplicativeFusion(LayeredFusion):
    """Base class of the operators in this package: options for activations, dropout and the most memory.

    Every subclass writes ``draw`` too, so that the output has about the power of the views.
    """

    # Set by ``keep_activations`` and ``keep_rates`` in operators that have these options.
    activ_input: str | None
    activ_output: str | None
    dropout_input: float
    dropout_pre_lin: float
    dropout_pre_norm: float
    dropout_output: float

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
            self.declare_traits(stochastic=True, train_eval_differ=True)

    def drop(self, x: Tensor, rate: float) -> Tensor:
        """Return ``x``; in training with dropout at this rate."""
        return F.dropout(x, rate, self.training) if rate else x

    def core_width(self, mm_dim: int | None, default: Callable[[int], int]) -> Any:
        """Return ``mm_dim``, or the default for k views; None where k is not known, and nothing is built."""
        if mm_dim is None:
            return None if self.dims is None else default(len(self.dims))
        return check_size("mm_dim, the width of the projected views,", mm_dim)

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


def output_gain(name: str | None) -> float:
    """Return the standard deviation of normal inputs for which the activation has about the mean square 1."""
    return float(moments(name)[1] ** -0.5)


def written(number: int) -> str:
    """Return a number in digits, or as a power of ten if it has more than 30."""
    return str(number) if number < 10**30 else f"about 10^{log10(number):.0f}"


def rows(x: Sequence[Tensor]) -> list[Tensor]:
    """Return the views as matrices, (..., n_i) -> (m, n_i)."""
    return [view.reshape(-1, view.shape[-1]) for view in x]
