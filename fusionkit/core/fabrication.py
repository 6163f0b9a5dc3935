"""The base class of every fabrication."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import BoolTensor, Tensor, nn

from fusionkit.core.construction import ConstructMeta, registered_key, writable
from fusionkit.core.external_w import cut
from fusionkit.core.traits import Traits
from fusionkit.core.validation import check_dims, check_size
from fusionkit.errors import FusionError
from fusionkit.kernels.matmul import joined_rows, linear
from fusionkit.kernels.modes import in_place_ok, outside_transforms
from fusionkit.kernels.planning import BreakEven, Effort, Launched
from fusionkit.registry import lookup


class Sized(NamedTuple):
    """The size for which a fabrication is prepared: W (n, sum(dims)), and the shapes of the parameter blocks."""

    n: int
    dims: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]

    def fits(self, n: int, D: int) -> bool:
        """Whether W of shape (n, D) has this size."""
        return self.n == n and sum(self.dims) == D


class Fabrication(nn.Module, metaclass=ConstructMeta):
    """Make a matrix W of shape (n, D) out of l(n, D) parameters, and multiply by it.

    A subclass must write ``shapes`` and ``_materialize``.  It may write ``_project``, if it can multiply without
    building W; ``effort``, if building W is cheaper at some sizes; ``_squared_norm``, if the norm of W can be computed
    without W; and, if it has frozen parts, ``frozen_shapes`` and ``_draw_frozen``.
    """

    traits: ClassVar[Traits] = Traits()
    #: The number of trainable factors of which W is a product, ``W(c * w) = c**degree * W(w)``; used by ``init_``.
    degree: int = 1
    #: Whether ``_project`` is used at every size, whatever ``effort`` returns.
    never_builds_W: ClassVar[bool] = False
    #: Whether the one block is W itself, called ``weight``.
    is_dense: ClassVar[bool] = False
    #: Name -> dtype of each frozen part that is not floating point.
    frozen_dtypes: ClassVar[dict[str, torch.dtype]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._key: str | None = None
        self._arguments: dict[str, Any] = {}
        self._sized: Sized | None = None
        self._break_even: BreakEven | None = None
        self._quicker: dict[tuple[Any, ...], bool] = {}

    # ------------------------------------------------------------------ what a subclass writes

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the parameter blocks in the order of ``w``.  Pure.

        Raises:
            FusionError: an option is out of range for this n and D.
        """
        raise NotImplementedError(f"{type(self).__name__} should define shapes.")

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        """Return W (n, D) from blocks in their natural shape."""
        raise NotImplementedError(f"{type(self).__name__} should define _materialize.")

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        """Return ``concat(x) @ W.T``, x: views (..., n_i) -> (..., n)."""
        return linear(x, self._materialize(blocks, n, sum(view.shape[-1] for view in x)))

    def _squared_norm(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        """Return the squared Frobenius norm of W."""
        return self._materialize(blocks, n, D).square().sum()

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return the frozen parts and their shapes; none by default.  Pure."""
        return {}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        """Draw the frozen parts from the option ``seed``: on the CPU, floating-point ones as float32."""
        return {}

    def effort(self, n: int, D: int) -> Effort | None:
        """Return what ``_project`` costs, for ``kernels.planning``; None (the default): use it at every size."""
        return None

    def padding(self, n: int, D: int) -> dict[str, BoolTensor]:
        """Return, per block, which entries of a padded layout cannot influence W; none by default."""
        return {}

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return keyword sets with which the conformance kit builds the fabrication."""
        return [{}]

    # ------------------------------------------------------------------ what a user calls

    def calculate_l(self, n: int, D: int) -> int:
        """Return the number of parameters, the sum of the sizes of the blocks.  Pure."""
        return sum(prod(shape) for shape in self.checked_shapes(n, D).values())

    def materialize(self, w: Tensor, n: int, D: int) -> Tensor:
        """Return W (n, D) from w of shape (l,) or (1, l).

        Raises:
            FusionError: w has another length, or an option is out of range for this n and D.
        """
        # A W without blocks has a default dtype and device: give it those of w.
        return self._materialize(self.split(w, n, D), n, D).to(w)

    def __call__(self, n: int, D: int, w: Tensor, device: torch.device | str | None = None) -> Tensor:
        """Return ``materialize(w, n, D)``, with ``w`` moved to ``device`` first if one is given."""
        return self.materialize(w if device is None else w.to(device), n, D)

    def project(self, x: Sequence[Tensor], w: Tensor, n: int) -> Tensor:
        """Return ``concat(x) @ materialize(w, n, D).T``, x: views (..., n_i) -> (..., n), with or without building W.

        Raises:
            FusionError: as ``materialize``.
        """
        dims = tuple(view.shape[-1] for view in x)
        blocks, sized = self.split(w, n, sum(dims)), self._sized
        prepared = sized is not None and (sized.n, sized.dims) == (n, dims)
        return self._multiply(x, blocks, n, self._break_even if prepared else self._weighed(n, sum(dims)))

    def init_(self, w: Tensor, n: int, D: int, generator: torch.Generator | None = None) -> None:
        """Fill ``w`` (l,) or (1, l) in place with Gaussian blocks, scaled so that W has mean square 1/D.

        So the fused views keep the mean square of the views: LeCun et al., "Efficient BackProp" (1998), for a dense W.
        """
        with torch.no_grad():
            flat = w.reshape(-1)
            if not flat.numel():
                return
            # Draw in float32: in half precision the norm would overflow or lose digits.
            draw = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
            draw.normal_(generator=generator)
            norm = self._squared_norm(self.split(draw, n, D), n, D)
            draw.mul_((n / norm).pow(0.5 / self.degree))
            w.copy_(draw.view(w.shape))

    def prepare(self, n: int, dims: Sequence[int], device: Any = None, dtype: torch.dtype | None = None) -> Sized:
        """Create the frozen buffers for W (n, sum(dims)); the owning operator calls it once, in its constructor."""
        widths = check_dims(dims)
        D = sum(widths)
        # Set first without shapes: in some subclasses ``shapes`` reads the widths of the views from it.
        self._sized = Sized(n, widths, {})
        self._sized = sized = Sized(n, widths, self.checked_shapes(n, D))
        for name, shape in self.frozen_shapes(n, D).items():
            kind = self.frozen_dtypes.get(name, dtype)
            self.register_buffer(name, torch.empty(shape, device=device, dtype=kind))
        self.reset_frozen()
        self._break_even = self._weighed(n, D)
        return sized

    def reset_frozen(self) -> None:
        """Refill the frozen buffers from the seed."""
        buffers = dict(self.named_buffers())
        if self._sized is None or not buffers or any(buffer.is_meta for buffer in buffers.values()):
            return
        for name, value in self._draw_frozen(self._sized.n, sum(self._sized.dims)).items():
            if name in buffers:
                buffers[name].copy_(value)

    def to_config(self) -> dict[str, Any]:
        """Return a dict of JSON types; ``fusionkit.create_fabrication(**config)`` builds an equal fabrication from it.

        Raises:
            ConfigError: the class is not registered, or an argument has no JSON form.
        """
        key = registered_key(self)
        return {"name": key, **writable(key, self._arguments)}

    # ------------------------------------------------------------------ for owners and subclasses

    def checked_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return ``shapes(n, D)`` for validated n and D; for the prepared size they are computed only once."""
        if self._sized is not None and self._sized.shapes and self._sized.fits(n, D):
            return self._sized.shapes
        return self.shapes(check_size("n, the height of W,", n), check_size("D, the width of W,", D))

    def split(self, w: Tensor, n: int, D: int) -> dict[str, Tensor]:
        """Cut ``w`` (l,) or (1, l) into the blocks, which share its memory, in their natural shapes.

        Raises:
            FusionError: a wrong length.
        """
        return cut(w, self.checked_shapes(n, D))

    def multiply(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        """Return ``concat(x) @ W.T`` for the prepared size, with or without W, x: views (..., n_i) -> (..., n)."""
        return self._multiply(x, blocks, n, self._break_even)

    def multiply_built(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        """Build W and return concat(x) @ W.T, x: views (..., n_i) -> (..., n)."""
        W = self._materialize(blocks, n, sum(view.shape[-1] for view in x))
        return linear(x, W if blocks else W.to(x[0]))

    def skips_materialization(self, x: Sequence[Tensor]) -> bool:
        """Whether ``multiply`` does not build W for these views, which have the prepared size."""
        even, sized = self._break_even, self._sized
        return even is None or sized is None or self._skips(x, sized.n, even)

    def _weighed(self, n: int, D: int) -> BreakEven | None:
        effort = None if self.never_builds_W else self.effort(n, D)
        return None if effort is None else BreakEven.of(effort, n, D)

    def _skips(self, x: Sequence[Tensor], n: int, even: BreakEven) -> bool:
        rows = x[0].numel() // x[0].shape[-1]
        if not x[0].is_cuda or type(rows) is not int or not in_place_ok(x[:1]):
            return even.skips_materialization(x[0])
        return even.huge or self._quicker_on_gpu(n, tuple(view.shape[-1] for view in x), rows, x[0].dtype)

    def _quicker_on_gpu(self, n: int, dims: tuple[int, ...], rows: int, dtype: torch.dtype) -> bool:
        """Whether the product without W is quicker on a GPU; estimated once per magnitude of the number of rows."""
        magnitude = rows.bit_length()
        key = n, dims, magnitude, dtype
        if key not in self._quicker:
            counted, D, size = copy.copy(self), sum(dims), dtype.itemsize
            rows = max(1, 3 * 2**magnitude // 4)
            with torch.device("meta"):
                x = [torch.empty(rows, width, dtype=dtype) for width in dims]
                blocks = {name: torch.empty(shape, dtype=dtype) for name, shape in self.checked_shapes(n, D).items()}
                buffers = {name: torch.empty_like(b, device="meta") for name, b in self.named_buffers()}
            vars(counted)["_buffers"] = buffers
            own = Launched.by(lambda: counted._project(x, blocks, n))
            # Concatenated by hand: on the meta device, ``linear`` would take the view-by-view path of a CPU.
            built = Launched.by(lambda: counted.multiply_built([torch.cat(x, -1)], blocks, n))
            self._quicker[key] = own.seconds(size) < built.seconds(size)
        return self._quicker[key]

    def _multiply(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int, even: BreakEven | None) -> Tensor:
        if even is None:
            return self._project(x, blocks, n)
        if not self._skips(x, n, even):
            return self.multiply_built(x, blocks, n)
        rows = x[0].numel() // x[0].shape[-1]
        # Blocks of rows are quicker on a CPU only, where a block stays in the cache.
        blockwise = x[0].is_cpu and not torch.compiler.is_compiling() and type(rows) is int
        if not blockwise or 2 * rows <= 3 * even.block or not in_place_ok((*x, *blocks.values())):
            return self._project(x, blocks, n)
        # Pieces of nearly equal size, by split: the derivative of tensor_split is slow.
        step = -(-rows // round(rows / even.block))
        pieces = [joined_rows([view]).split(step) for view in x]
        out = torch.cat([self._project(piece, blocks, n) for piece in zip(*pieces, strict=True)])
        return out.view(*x[0].shape[:-1], n)

    def frozen(self, n: int, D: int, like: Tensor) -> dict[str, Tensor]:
        """Return the frozen parts in the dtype of ``like``: the buffers if prepared for this size, else drawn anew."""
        if self._sized is not None and self._sized.fits(n, D):
            parts = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        else:
            # vmap forbids random numbers, but these depend on the seed alone, not on the batch.
            with outside_transforms():
                parts = {name: value.to(like.device) for name, value in self._draw_frozen(n, D).items()}
        return {name: part.to(self.frozen_dtypes.get(name, like.dtype)) for name, part in parts.items()}

    def extra_repr(self) -> str:
        """Return the options that were given."""
        return ", ".join(f"{key}={value!r}" for key, value in self._arguments.items())

    def _constructed(self, key: str | None, arguments: dict[str, Any]) -> None:
        self._key, self._arguments = key, arguments


class CallableFabrication(Fabrication):
    """Wrap an object with ``calculate_l(n=, D=)`` and ``__call__(n=, D=, w=, device=) -> (n, D)`` as a fabrication.

    The parameters are one flat block ``w``; the object receives it in the shape (1, l).

    Raises:
        FusionError: the object is a module with parameters of its own, which would not be trained.
    """

    source: Any

    def __init__(self, source: Any) -> None:
        super().__init__()
        if isinstance(source, nn.Module) and (own := [name for name, _ in source.named_parameters()]):
            raise FusionError(
                f"parameter_fabrication should take its parameters as w; found a module with its own: {', '.join(own)}."
            )
        # Not as a submodule: parameters that it may create in a call do not belong to the operator.
        self.__dict__["source"] = source

    def _apply(self, fn: Any, recurse: bool = True) -> CallableFabrication:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.source, nn.Module):
            self.source._apply(fn, recurse)
        return self

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        """Return one block whose length the object calculates."""
        return {
            "w": (check_size("calculate_l of parameter_fabrication", self.source.calculate_l(n=n, D=D), minimum=0),)
        }

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        w = blocks["w"]
        W = self.source(n=n, D=D, w=w.unsqueeze(0), device=str(w.device))
        if not isinstance(W, Tensor) or tuple(W.shape) != (n, D):
            found = tuple(W.shape) if isinstance(W, Tensor) else type(W).__name__
            raise FusionError(f"parameter_fabrication should return a matrix of shape ({n}, {D}); found {found}.")
        return W.to(w)

    def init_(self, w: Tensor, n: int, D: int, generator: torch.Generator | None = None) -> None:
        """Scale a Gaussian w so that W has mean square 1/D, after measuring how W scales with w."""
        with torch.no_grad():
            draw = torch.empty(w.numel(), device=w.device).normal_(generator=generator)
            if not draw.numel() or draw.is_meta:
                return
            norm = self._squared_norm({"w": draw}, n, D)
            degree = 0.5 * (self._squared_norm({"w": 2 * draw}, n, D) / norm).log2()
            scale = (n / norm).pow(0.5 / degree)
            # Where W is not a power of w, w keeps the unscaled draw.
            w.copy_((draw * scale if bool(torch.isfinite(scale)) and float(degree) > 0.1 else draw).view(w.shape))


# ---------------------------------------------------------------------- helpers for subclasses


def gaussians(seed: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return standard normal tensors of these shapes, drawn in this order from ``seed``: float32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        for name, shape in shapes.items()
    }


def cropped(rows: Tensor, n: int, like: Tensor) -> Tensor:
    """Return the first n columns of rows (m, N) with the dtype and the leading dimensions of a view, (..., n)."""
    return rows[:, :n].to(like.dtype).contiguous().view(*like.shape[:-1], n)


lookup.BASES["fabrication"] = Fabrication
