"""An operator on some of its views, with copies of what belongs to them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fusionkit.core.construction import Unwritable, construct
from fusionkit.core.masking import attach
from fusionkit.errors import FusionError

if TYPE_CHECKING:
    from fusionkit.core.fusion import Fusion

#: A parameter, a buffer or a module.
Part = nn.Module | Tensor

#: The options that ``carry_over`` treats, not the constructor.
SURROUNDING = ("name", "preprocess", "postprocess", "missing")


def restricted(
    fusion: Fusion, views: Sequence[int], *, parts: Mapping[str, Part] | None = None, **options: Any
) -> Fusion:
    """Return ``fusion`` on these views: built with fewer dims, with copies of its parameters, buffers and modules.

    Args:
        fusion: the operator.
        views: different indices of views.
        parts: those that are not copies, by name, where the class makes them itself.
        **options: of the constructor, where they are not those of ``fusion``.
    """
    indices = check_views(fusion, views)
    made, sources = _built(fusion, indices, options), {**_parts(fusion), **(parts or {})}
    for name, target in _parts(made).items():
        cut = name in fusion.per_view and name not in (parts or {})
        copied = _picked(sources[name], indices, len(fusion.resolve_dims())) if cut else copy.deepcopy(sources[name])
        if _shapes(copied) != _shapes(target):
            should = "declare what has an entry per view in per_view, or write its own restrict"
            found = f"{name} with the shapes {_shapes(copied)} for {_shapes(target)}"
            raise FusionError(f"{fusion.name} should {should}; found {found}.")
        setattr(made, name, copied)
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


def _built(fusion: Fusion, views: Sequence[int], options: Mapping[str, Any]) -> Fusion:
    """Return a new operator with the options of ``fusion`` and fewer dims, and its parameters as they start."""
    dims = fusion.resolve_dims()
    given: dict[str, Any] = {"dims": [dims[i] for i in views]}
    for key, value in fusion._arguments.items():
        if key not in (*SURROUNDING, "n", "dims"):
            kept = getattr(fusion, key, value) if isinstance(value, Unwritable) else value
            given[key] = [kept[i] for i in views] if key in fusion.per_view and isinstance(kept, list) else kept
    if fusion.traits.free_n:
        given["n"] = fusion.calculate_n()
    with torch.random.fork_rng(devices=[]):
        return construct(type(fusion), fusion._key, {**given, **options})


def _parts(fusion: Fusion) -> dict[str, Part]:
    """Return the parameters, buffers and modules of an operator that are not None, but for what surrounds it."""
    tables: tuple[Mapping[str, Any], ...] = (fusion._parameters, fusion._buffers, fusion._modules)
    found = {name: part for table in tables for name, part in table.items()}
    return {name: part for name, part in found.items() if part is not None and name not in SURROUNDING}


def _picked(source: Part, views: Sequence[int], k: int) -> Part:
    """Return a copy of the entries of these views: of a ModuleList, or along the first dimension of a tensor."""
    each = len(source) // k  # type: ignore[arg-type]
    entries = [i * each + j for i in views for j in range(each)]
    if isinstance(source, nn.ModuleList):
        return nn.ModuleList(copy.deepcopy(source[entry]) for entry in entries)
    assert isinstance(source, Tensor)
    picked = source.detach()[entries].clone()
    return nn.Parameter(picked, source.requires_grad) if isinstance(source, nn.Parameter) else picked


def _shapes(part: Part) -> list[tuple[int, ...]]:
    tensors = [part] if isinstance(part, Tensor) else [*part.parameters(), *part.buffers()]
    return [tuple(tensor.shape) for tensor in tensors]
