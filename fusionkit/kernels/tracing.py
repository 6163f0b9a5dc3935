"""Counts what a computation does by running it on the meta device: shapes are computed, nothing is allocated.

Generic: every operation that reaches PyTorch's dispatcher is seen, so no operator has to state its own cost.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import log2, prod
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from fusionkit.kernels.modes import DispatchMode, writes_in_place

T = TypeVar("T")
aten = torch.ops.aten


class Operation(NamedTuple):
    """One operation as the dispatcher saw it.

    Attributes:
        name: of the operation, "aten.mm".
        macs: multiply-adds in products of matrices and convolutions; of an FFT half its 5 N log2 N operations.
        elementwise: arithmetic operations outside of products: results of pointwise, inputs of reducing operations.
        bytes: of the tensors that it reads and writes; 0 for a view.
    """

    name: str
    macs: int
    elementwise: int
    bytes: int


class Recorder(DispatchMode):
    """While it is entered, keeps the operations, and how many bytes of the tensors they make live at once.

    Attributes:
        operations: in the order of execution.
        live: bytes of the storages that operations have made and that are still referred to.
        peak: the greatest ``live`` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and note it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs, results = list(tensors_in((args, kwargs))), list(tensors_in(out))
        known = {id(tensor.untyped_storage()) for tensor in inputs}
        fresh = [tensor for tensor in results if id(tensor.untyped_storage()) not in known]
        packet, moved = func.overloadpacket, 0
        if (fresh or writes_in_place(func)) and packet not in (aten.empty, aten.empty_strided, aten.empty_like):
            moved = sum(_bytes(tensor) for tensor in (*inputs, *results))
        for tensor in fresh:
            self._hold(tensor)
        self.operations.append(
            Operation(str(packet), _macs(packet, args, kwargs, out), _elementwise(func, inputs, results), moved)
        )
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._storages:
            return

        def release(_: Any) -> None:
            self.live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, release)
        self.live += size
        self.peak = max(self.peak, self.live)


class Allocations(Recorder):
    """Counts the bytes of the storages that operations within create, until they are freed; ``peak`` is the most.

    Attributes:
        shapes: the shapes of all tensors in new storages.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self._known = {id(tensor.untyped_storage()) for tensor in known}

    def _hold(self, tensor: Tensor) -> None:
        if id(tensor.untyped_storage()) not in self._known:
            super()._hold(tensor)
            self.shapes.append(tuple(tensor.shape))

    def alive(self) -> int:
        """Return the bytes that are alive now."""
        return self.live


def apart(function: Callable[[], T]) -> T:
    """Return ``function()``, run on the meta device in a thread of its own.

    There no mode, transform, autocast or default device of the caller is in force, and the caller's modes and profilers
    do not see it.
    """
    results: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            with torch.device("meta"), torch.no_grad():
                results.append(function())
        except BaseException as problem:
            problems.append(problem)

    thread = Thread(target=run, name="fusionkit-meta", daemon=True)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers, such as the arguments or the result of an operation."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def _bytes(tensor: Tensor) -> int:
    # An expanded dimension lies in memory once.
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 0)
    return prod(sizes) * tensor.element_size()


def _macs(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    if packet not in flop_registry and packet.__name__.endswith("_"):
        # An operation in place counts as the one that is not.
        packet = getattr(aten, packet.__name__.rstrip("_"), packet)
    if packet in flop_registry:
        # PyTorch counts two operations for a multiply-add, and complex numbers as if they were real.
        macs = int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
        return macs * 4 if isinstance(out, Tensor) and out.is_complex() else macs
    if packet in (aten.mv, aten.dot, aten.vdot):
        return int(args[0].numel())
    if packet is aten.addmv:
        return int(args[1].numel())
    if packet in (aten._fft_r2c, aten._fft_c2r, aten._fft_c2c):
        return _fft(packet, args, out)
    return 0


def _fft(packet: Any, args: tuple[Any, ...], out: Tensor) -> int:
    # The real side of a transform has all of its entries; a real transform costs half of a complex one.
    signal = out if packet is aten._fft_c2r else args[0]
    length = prod(signal.shape[dim] for dim in args[1])
    complex_macs = 2.5 * signal.numel() * log2(max(length, 2))
    return round(complex_macs if packet is aten._fft_c2c else complex_macs / 2)


def _elementwise(func: Any, inputs: Iterable[Tensor], results: Iterable[Tensor]) -> int:
    if func.overloadpacket in (aten.clone, aten.copy_, aten._to_copy):
        return 0
    if torch.Tag.pointwise in func.tags:
        return max((tensor.numel() for tensor in results), default=0)
    if torch.Tag.reduction in func.tags:
        return max((tensor.numel() for tensor in inputs), default=0)
    return 0
