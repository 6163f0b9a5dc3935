"""Share W of a parameterized concatenation out to several processes: plans for torch's ``parallelize_module``.

Both keep what ``Fusion.forward`` does before and after the product with W, and replace the product: each process
multiplies by its part of W, and one collective makes the whole output in all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle

from fusionkit.errors import FusionError
from fusionkit.fabrication import Fabrication
from fusionkit.fabrications.dense import Dense
from fusionkit.fabrications.lowrank import LowRank
from fusionkit.fusion import check_dims, check_size
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.kernels.matmul import linear

__all__ = ["by_output", "by_view", "views_by_process"]


def by_output() -> ParallelStyle:
    """Return the plan by which each process has some rows of W, or of a low-rank ``W = A B`` some of the r ranks.

    Every process gets all views, the same ones, and returns the whole output.  Dense: the rows are divided as
    ``torch.chunk`` does, and the parts of the output are gathered.  Low rank: a process has columns of A (n, r) and the
    rows of B (r, D) that belong to them, and the parts are summed.  With fewer rows or ranks than processes, some have
    nothing.  ``parallelize_module(fusion, mesh, by_output())`` changes the operator in place.

    Raises:
        FusionError: from ``parallelize_module``: another operator or fabrication, one without parameters of its own,
            or a mesh of several dimensions.
    """
    return _ByOutput()


def by_view() -> ParallelStyle:
    """Return the plan by which each process has the columns of its views of W, or of B if ``W = A B``, and sums.

    ``views_by_process`` says which views a process has.  It is called with the list of all views, in which those of
    other processes may be None; they get no gradient here.  A (n, r) is in every process.
    ``parallelize_module(fusion, mesh, by_view())`` changes the operator in place.

    Raises:
        FusionError: from ``parallelize_module``: as ``by_output``; a ``preprocess`` with parameters or buffers, the
            option ``missing``, or more processes than views.
    """
    return _ByView()


def views_by_process(dims: Sequence[int], processes: int) -> list[range]:
    """Return which views, of the widths ``dims``, each process has under ``by_view``.

    Every process has at least one, its views are neighbours, and the greatest sum of widths is as small as possible.

    Raises:
        FusionError: fewer views than processes.
    """
    widths = check_dims(dims)
    if len(widths) < check_size("processes", processes):
        raise FusionError(f"by_view should get at least a view for each of {processes} processes; found {len(widths)}.")
    limits = range(max(widths), sum(widths) + 1)
    fitting = bisect_left(limits, True, key=lambda limit: len(_groups(widths, limit)) <= processes)
    starts = _groups(widths, limits[fitting], processes)
    return [range(*pair) for pair in zip(starts, [*starts[1:], len(widths)], strict=True)]


def _groups(widths: Sequence[int], limit: int, count: int = 0) -> list[int]:
    """Return where groups of neighbours start whose widths add up to at most ``limit``; at least ``count`` groups."""
    starts, total = [0], 0
    for i, width in enumerate(widths):
        total += width
        if i and (total > limit or len(widths) - i <= count - len(starts)):
            starts.append(i)
            total = width
    return starts


# ------------------------------------------------------------------ the plans


class _Plan(ParallelStyle):
    """Replace the parameters of W by their parts, and the fabrication by one that multiplies by them."""

    name: str

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        fusion, blocks = self._checked(module, device_mesh)
        for block, value in blocks.items():
            part = self._part(fusion, block, value, device_mesh)
            fusion.register_parameter(block, nn.Parameter(part, requires_grad=value.requires_grad))
        with torch.no_grad():
            for _, other in _others(fusion, blocks):
                if not other.is_meta:
                    other.copy_(self._distributed(other, device_mesh, Replicate()).to_local())
        fusion.fabrication = self._product(fusion, device_mesh)
        return fusion

    @abstractmethod
    def _part(self, fusion: ParameterizedConcatenation, block: str, value: Tensor, mesh: DeviceMesh) -> DTensor:
        """Return a parameter of W, shared out."""

    @abstractmethod
    def _product(self, fusion: ParameterizedConcatenation, mesh: DeviceMesh) -> _SharedOut:
        """Return the product with W that takes the place of the fabrication."""

    def _distributed(self, value: Tensor, mesh: DeviceMesh, placement: Any) -> DTensor:
        return distribute_tensor(value.detach(), mesh, [placement], src_data_rank=self.src_data_rank)

    def _checked(
        self, module: nn.Module, mesh: DeviceMesh
    ) -> tuple[ParameterizedConcatenation, dict[str, nn.Parameter]]:
        """Return the operator, and the parameters of its W by name."""
        if not isinstance(module, ParameterizedConcatenation):
            should = "get a parameterized_concatenation, by its place in a model: {'fusion': " + f"{self.name}()" + "}"
            raise FusionError(f"{self.name} should {should}; found {type(module).__name__}.")
        if mesh.ndim != 1:
            should = "get a mesh of one dimension, such as mesh['name']"
            raise FusionError(f"{self.name} should {should}; found {mesh.ndim} dimensions.")
        fabrication = module.fabrication
        if isinstance(fabrication, _SharedOut):
            raise FusionError(f"{self.name} should get an operator that is whole; found one that is shared out.")
        if type(fabrication) not in (Dense, LowRank):
            found = getattr(fabrication, "_key", None) or type(fabrication).__name__
            advice = "Its fold() returns an equal dense operator; torch's fully_shard shares out any parameters."
            raise FusionError(f"{self.name} should get W of dense or lowrank; found {found}.  {advice}")
        names = fabrication.shapes(module.calculate_n(), sum(module.resolve_dims()))
        own = dict(module.named_parameters(recurse=False))
        if not own.keys() >= names.keys():
            should = f"get an operator with its parameters {', '.join(names)}"
            raise FusionError(f"{self.name} should {should}; found {', '.join(own) or 'none'}.")
        return module, {name: own[name] for name in names}


def _others(fusion: nn.Module, blocks: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Return the parameters and buffers that are not of W: every process keeps all of them."""
    found: list[tuple[str, Tensor]] = [*fusion.named_parameters(), *fusion.named_buffers()]
    return [(name, tensor) for name, tensor in found if name not in blocks]


class _ByOutput(_Plan):
    name = "by_output"

    def _part(self, fusion: ParameterizedConcatenation, block: str, value: Tensor, mesh: DeviceMesh) -> DTensor:
        return self._distributed(value, mesh, Shard(1 if block == "A" else 0))

    def _product(self, fusion: ParameterizedConcatenation, mesh: DeviceMesh) -> _SharedOut:
        return _Rows(fusion.fabrication)


class _ByView(_Plan):
    name = "by_view"

    def _checked(
        self, module: nn.Module, mesh: DeviceMesh
    ) -> tuple[ParameterizedConcatenation, dict[str, nn.Parameter]]:
        fusion, blocks = super()._checked(module, mesh)
        if fusion.stand_in is not None:
            should = "get an operator without the option missing, because views of other processes count as absent"
            raise FusionError(f"by_view should {should}; found missing={fusion.stand_in.kind!r}.")
        found = [name for name, _ in _others(fusion, blocks) if name.startswith("preprocess.")]
        if found:
            advice = "Apply it to the views of a process before the call."
            raise FusionError(
                f"by_view should get a preprocess without parameters; found {', '.join(found)}.  {advice}"
            )
        return fusion, blocks

    def _part(self, fusion: ParameterizedConcatenation, block: str, value: Tensor, mesh: DeviceMesh) -> DTensor:
        if block == "A":
            return self._distributed(value, mesh, Replicate())
        return self._distributed(_Padding(fusion, mesh).padded(value.detach()), mesh, Shard(1))

    def _product(self, fusion: ParameterizedConcatenation, mesh: DeviceMesh) -> _SharedOut:
        padding = _Padding(fusion, mesh)
        if padding.exists:
            # A partial, because torch sets an attribute of the hook, which a method cannot have.
            fusion.register_state_dict_post_hook(partial(padding.after_state_dict))  # type: ignore[no-untyped-call]
            fusion.register_load_state_dict_pre_hook(padding.before_load)  # type: ignore[no-untyped-call]
        rank = mesh.get_local_rank()
        return _Columns(fusion.fabrication, padding.views[rank], padding.widths[rank])


class _Padding:
    """The columns of zeros behind those of each process: torch's ``Shard`` knows only parts of one width.

    Only the parameters have them.  A ``state_dict`` has the columns of W alone, and so has what is loaded.
    """

    def __init__(self, fusion: ParameterizedConcatenation, mesh: DeviceMesh) -> None:
        dims = fusion.resolve_dims()
        self.views = views_by_process(dims, mesh.size())
        self.widths = [sum(dims[i] for i in views) for views in self.views]
        self.block = "weight" if type(fusion.fabrication) is Dense else "B"

    @property
    def exists(self) -> bool:
        return min(self.widths) < max(self.widths)

    def padded(self, W: Tensor) -> Tensor:
        """Return the matrix (n, D) with padding: (n, processes * widest part)."""
        if not self.exists:
            return W
        parts = W.split(self.widths, 1)
        return torch.cat([F.pad(part, (0, max(self.widths) - part.shape[1])) for part in parts], 1)

    def cropped(self, padded: Tensor) -> Tensor:
        """Return the matrix (n, D) without its padding."""
        parts = padded.split(max(self.widths), 1)
        return torch.cat([part[:, :width] for part, width in zip(parts, self.widths, strict=True)], 1)

    def after_state_dict(self, module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        """Replace the parameter in a state_dict by the same as a DTensor (n, D)."""
        value = state[prefix + self.block]
        W = self.cropped(value.detach().full_tensor())
        state[prefix + self.block] = distribute_tensor(W, value.device_mesh, [Shard(1)], src_data_rank=None)

    def before_load(self, module: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
        """Replace W (n, D), a tensor or a DTensor, in what is loaded by the same with padding."""
        value = state.get(prefix + self.block)
        own = module.get_parameter(self.block)
        if not isinstance(value, Tensor) or not isinstance(own, DTensor) or value.shape[1:] != (sum(self.widths),):
            return  # The module itself says what is missing, or has another shape.
        W = value.full_tensor() if isinstance(value, DTensor) else value
        state[prefix + self.block] = distribute_tensor(self.padded(W), own.device_mesh, [Shard(1)], src_data_rank=None)


# ------------------------------------------------------------------ the products


class _SharedOut(Fabrication):
    """The product with W in parts; the parameters are DTensors, all else is plain."""

    def __init__(self, whole: Fabrication) -> None:
        super().__init__()
        self.whole = whole

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return self.whole.shapes(n, D)

    def reset_frozen(self) -> None:
        # The first that reset_parameters calls; drawn in parts, W would have other values.
        raise FusionError("reset_parameters should be called before W is shared out; found parts of W.")

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        should = "be gathered by get_model_state_dict of torch.distributed.checkpoint.state_dict"
        raise FusionError(f"W should {should}, and loaded into an operator that is whole; found parts of W.")

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        parts = {}
        for name, block in blocks.items():
            if not isinstance(block, DTensor):
                raise FusionError("w should be None, as W is shared out; found a tensor.")
            parts[name], mesh = block.to_local(), block.device_mesh
        return self._multiply_parts(x, parts, n, mesh)

    @abstractmethod
    def _multiply_parts(self, x: Sequence[Tensor], parts: Mapping[str, Tensor], n: int, mesh: DeviceMesh) -> Tensor:
        """Return the whole output (..., n)."""


class _Rows(_SharedOut):
    def _multiply_parts(self, x: Sequence[Tensor], parts: Mapping[str, Tensor], n: int, mesh: DeviceMesh) -> Tensor:
        # The gradient of a view is the sum of those of all parts.
        views = [
            DTensor.from_local(view, mesh, [Replicate()], run_check=False).to_local(grad_placements=[Partial()])
            if view.requires_grad
            else view
            for view in x
        ]
        if "A" in parts:
            return _summed(F.linear(linear(views, parts["B"]), parts["A"]), mesh)
        out = linear(views, parts["weight"])
        shape = torch.Size((*out.shape[:-1], n))
        stride = torch.empty(shape, device="meta").stride()
        place = [Shard(out.ndim - 1)]
        return DTensor.from_local(out, mesh, place, run_check=False, shape=shape, stride=stride).full_tensor()


class _Columns(_SharedOut):
    """``views`` are those of this process, ``width`` is the sum of their widths."""

    def __init__(self, whole: Fabrication, views: range, width: int) -> None:
        super().__init__(whole)
        self.views, self.width = views, width

    def _multiply_parts(self, x: Sequence[Tensor], parts: Mapping[str, Tensor], n: int, mesh: DeviceMesh) -> Tensor:
        wide = parts["B"] if "A" in parts else parts["weight"]
        if wide.shape[1] > self.width:
            wide = wide[:, : self.width]
        out = _summed(linear([x[i] for i in self.views], wide), mesh)
        return F.linear(out, parts["A"]) if "A" in parts else out


def _summed(part: Tensor, mesh: DeviceMesh) -> Tensor:
    """Return the sum of the parts of all processes."""
    return DTensor.from_local(part, mesh, [Partial()], run_check=False).full_tensor()
