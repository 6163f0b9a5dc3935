"""An operator on some of its views, with copies of what belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fusionkit.core.construction import Unwritable, construct
from fusionkit.core.masking import attach
from fusionkit.errors import FusionError

if TYPE_CHECKING:
    from fusionkit.core.fusion import Fusion

#: The options that ``carry_over`` treats, not the constructor.
SURROUNDING = ("name", "preprocess", "postprocess", "missing")


def restricted(fusion: Fusion, views: Sequence[int]) -> Fusion:
    """Return ``fusion`` on these views: built with fewer dims; parameters and buffers are copied by name."""
    indices = check_views(fusion, views)
    made = _built(fusion, indices)
    sources = dict(fusion.named_parameters(remove_duplicate=False)) | dict(fusion.named_buffers(remove_duplicate=False))
    for module, prefix in list(made._own_modules()):
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for entries in tables:
            for name, target in entries.items():
                if target is None:
                    continue
                source = _source(fusion, prefix + name, indices, sources)
                if source.shape != target.shape:
                    found = f"{prefix}{name} of shape {tuple(source.shape)} for {tuple(target.shape)}"
                    should = "declare what has an entry per view in per_view, or write its own restrict"
                    raise FusionError(f"{fusion.name} should {should}; found {found}.")
                trained = isinstance(target, nn.Parameter)
                entries[name] = nn.Parameter(source, sources[prefix + name].requires_grad) if trained else source
    carry_over(fusion, made, indices)
    return made


def check_views(fusion: Fusion, views: Any) -> list[int]:
    """Return indices of views of ``fusion`` as a list; raise a ``FusionError`` for others, for none, or one twice."""
    k = len(fusion.resolve_dims())
    found = list(views) if isinstance(views, Sequence) else [views]
    if not found or len(set(found)) < len(found) or any(type(i) is not int or not 0 <= i < k for i in found):
        raise FusionError(f"views should be different indices from 0 to {k - 1}, at least one; found {views!r}.")
    return found


def carry_over(fusion: Fusion, made: Fusion, views: Sequence[int]) -> None:
    """Give an operator on some of the views of ``fusion`` what surrounds it: processing, ``missing``, label, mode."""
    for role, kept in (("preprocess", views), ("postprocess", [0])):
        processing = getattr(fusion, role)
        setattr(made, role, None if processing is None else processing.restrict(kept))
    made._arguments |= {key: value for key, value in fusion._arguments.items() if key in SURROUNDING}
    made._key, made._name = fusion._key, fusion._name
    if fusion.missing is not None:
        attach(made, fusion.missing.restrict(views, fusion._factory))
    made.train(fusion.training)


def _built(fusion: Fusion, views: Sequence[int]) -> Fusion:
    """Return a new operator with the options of ``fusion`` and fewer dims, and its parameters as they start."""
    dims = fusion.resolve_dims()
    options: dict[str, Any] = {"dims": [dims[i] for i in views]}
    for key, value in fusion._arguments.items():
        if key in SURROUNDING or key in ("n", "dims"):
            continue
        given = getattr(fusion, key, value) if isinstance(value, Unwritable) else value
        if key in fusion.per_view and isinstance(given, list):
            given = [given[i] for i in views]
        options[key] = given
    if fusion.traits.free_n:
        options["n"] = fusion.calculate_n()
    with torch.random.fork_rng(devices=[]):
        return construct(type(fusion), fusion._key, options)


def _source(fusion: Fusion, name: str, views: Sequence[int], sources: dict[str, Tensor]) -> Tensor:
    """Return a copy of the parameter or buffer of ``fusion`` that belongs to ``name`` of the operator on ``views``."""
    head, _, rest = name.partition(".")
    if head not in fusion.per_view:
        return sources[name].detach().clone()
    if not rest:
        return sources[name].detach()[list(views)].clone()
    index, dot, tail = rest.partition(".")
    return sources[f"{head}.{views[int(index)]}{dot}{tail}"].detach().clone()
