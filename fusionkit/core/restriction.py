"""An operator on some of its views, with copies of what belongs to them.

The functions with an argument ``self`` are methods of ``Fusion``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from fusionkit._util.trees import to_python
from fusionkit.core.construction import Unwritable, construct
from fusionkit.errors import FusionError

if TYPE_CHECKING:
    from fusionkit.core.fusion import Fusion

F = TypeVar("F", bound="Fusion")

#: A parameter, a buffer or a module.
Part = nn.Module | Tensor

#: The options that ``_surround`` treats, not the constructor.
SURROUNDING = ("name", "preprocess", "postprocess", "missing")


def restricted(
    self: Fusion, views: Sequence[int], *, parts: Mapping[str, Part] | None = None, **options: Any
) -> Fusion:
    """Return the operator on these views: built with fewer dims, with copies of its parameters, buffers and modules.

    Args:
        self: the operator.
        views: different indices of views.
        parts: those that are not copies, by name, where the class makes them itself.
        **options: of the constructor, where they are not those of this operator.
    """
    indices, k = self.check_views(views), len(self.resolve_dims())
    made, sources = self._with_views(indices, options), {**_parts(self), **(parts or {})}
    for name, target in _parts(made).items():
        cut = name in self.per_view and name not in (parts or {})
        copied = _picked(sources[name], indices, k) if cut else copy.deepcopy(sources[name])
        if _shapes(copied) != _shapes(target):
            should = "declare what has an entry per view in per_view, or write its own restrict"
            found = f"{name} with the shapes {_shapes(copied)} for {_shapes(target)}"
            raise FusionError(f"{self.name} should {should}; found {found}.")
        setattr(made, name, copied)
    return self.surround(made, indices)


def check_views(self: Fusion, views: Any) -> list[int]:
    """Return indices of views as a list.

    Raises:
        FusionError: no indices, one twice, or others.
    """
    k = len(self.resolve_dims())
    several = isinstance(views, Sequence) or getattr(views, "ndim", None) == 1
    found: list[Any] = to_python(list(views)) if several else [views]
    if not found or any(type(i) is not int or not 0 <= i < k for i in found) or len(set(found)) < len(found):
        raise FusionError(f"views should be different indices from 0 to {k - 1}, at least one; found {views!r}.")
    return found


def surround(self: Fusion, made: F, views: Sequence[int]) -> F:
    """Return ``made``, an operator on these views, with what surrounds this one: processing, label, mode, ..."""
    options = {key: value for key, value in self._arguments.items() if key in SURROUNDING}
    made.adopt(self._key, self._name, options)
    made.preprocess = None if self.preprocess is None else self.preprocess.restrict(views)
    made.postprocess = copy.deepcopy(self.postprocess)
    if self.stand_in is not None:
        made.attach(self.stand_in.restrict(views))
    return made.train(self.training)


def adopt(self: Fusion, key: str | None, label: str | None, options: Mapping[str, Any]) -> None:
    """Take over the registry key, the label and some of the given options of another operator."""
    self._key, self._name = key, label
    self._arguments = {**self._arguments, **options}


def with_views(self: F, views: Sequence[int], options: Mapping[str, Any]) -> F:
    """Return a new operator with the options of this one and fewer dims, and its parameters as they start."""
    dims = self.resolve_dims()
    given: dict[str, Any] = {"dims": [dims[i] for i in views]}
    for key, value in self._arguments.items():
        if key not in (*SURROUNDING, "n", "dims"):
            kept = getattr(self, key, value) if isinstance(value, Unwritable) else value
            given[key] = [kept[i] for i in views] if key in self.per_view and isinstance(kept, list) else kept
    if self.traits.free_n:
        given["n"] = self.calculate_n()
    with torch.random.fork_rng(devices={tensor.device for tensor in self.parameters() if tensor.is_cuda}):
        return construct(type(self), self._key, {**given, **options})


def _parts(op: nn.Module) -> dict[str, Part]:
    """Return the parameters, buffers and modules of an operator, but for what surrounds it."""
    own: list[tuple[str, Part]] = [*op.named_parameters(recurse=False), *op.named_buffers(recurse=False)]
    own += op.named_children()
    return {name: part for name, part in own if name not in (*SURROUNDING, "stand_in")}


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
