"""The traits that an operator may declare."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from fusionkit.errors import FusionError, nearest

#: The values of the trait ``missing``: what an absent view does.
Absence = Literal["skip", "neutral", "refuse"]
#: The values of ``missing``, an option of ``create``: what stands in for an absent view.
StandIn = Literal["placeholder", "indicator", "rescale"]


@dataclass(frozen=True, slots=True)
class Traits:
    """Properties that an operator (or a fabrication) promises beyond its contract; ``fusionkit check`` verifies each.

    Attributes:
        permutation_invariant: exchanging views of equal width changes nothing.
        linear: linear in the views.
        batch_independent: a row of the output depends on the same row of the views only.
        stochastic: two calls in training mode may differ.
        train_eval_differ: training and evaluation mode compute different things.
        aliases_input: the output may share memory with a view.
        constant_init: the initial parameters do not depend on the generator.
        idempotent: fusing k copies of a tensor returns it.
        convex: every output entry lies between the least and the greatest of the views' entries.
        monotone: raising an entry of a view never lowers an entry of the output.
        once_differentiable_only: there is no second derivative, or none in forward mode.
        free_n: ``n`` can be chosen, whatever ``dims`` are.
        constant: ignores its inputs (fabrications: ignores ``w``).
        memory_factor: peak extra memory is at most this many times (inputs + output + parameters).
        order_in_k: the work grows at most with this power of the number of views; None: faster than every power.
        init_gain: after initialization the mean square of the output is this many times the views', from least to most.
        missing: what an absent view does; ``skip``: the row is as ``restrict`` gives it for its other views;
            ``neutral``: as if the view were filled with the operator's ``fill``; ``refuse``: an error.
        may_ignore_views: W may leave views without an entry where n is small (fabrications).
    """

    permutation_invariant: bool = False
    linear: bool = False
    batch_independent: bool = False
    stochastic: bool = False
    train_eval_differ: bool = False
    aliases_input: bool = False
    constant_init: bool = False
    idempotent: bool = False
    convex: bool = False
    monotone: bool = False
    once_differentiable_only: bool = False
    free_n: bool = False
    constant: bool = False
    memory_factor: float = 8.0
    order_in_k: float | None = 1.0
    init_gain: tuple[float, float] = (0.5, 2.0)
    missing: Absence = "refuse"
    may_ignore_views: bool = False

    def __post_init__(self) -> None:
        """Refuse another value of ``missing``, which would count as none of them."""
        if self.missing not in get_args(Absence):
            hint = nearest(str(self.missing), get_args(Absence))
            raise FusionError(f"missing should be one of {', '.join(get_args(Absence))}; found {self.missing!r}.{hint}")

    def declared(self) -> dict[str, object]:
        """Return the traits that differ from their default."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
