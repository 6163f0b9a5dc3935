"""The one place where eager mode weighs a fabrication's own product against building W.

Both ways are run on the meta device once for each order of magnitude of the batch, their operations are priced, and the
cheaper one is taken: it does not matter who wrote the fabrication.  A price is a time in seconds,

    sum over the operations of  call + max(macs / rate, bytes / bandwidth),

with the constants of ``MACHINES``; only ratios matter.  While compiling or exporting, and under functorch transforms,
the choice must not depend on the batch: it is that for ``NOMINAL_ROWS``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusionkit.construct import build, writable
from fusionkit.errors import ConfigError
from fusionkit.work import Operation, Recorder, apart

if TYPE_CHECKING:
    from fusionkit.fabrication import Fabrication

__all__ = ["MACHINES", "Machine", "Plan", "plan", "price"]

#: While compiling or exporting the batch counts as having this many rows.
NOMINAL_ROWS = 1024
#: A W of at least so many entries is never built for at least so many rows: its memory would show, its speed not.
LARGE_W, MANY_ROWS = 10**6, 2000


@dataclass(frozen=True)
class Machine:
    """What operations cost on a kind of device.

    Attributes:
        call: seconds to launch one operation that computes.
        view: seconds to make a view.
        rate: multiply-adds per second in products of matrices.
        fft: the same in Fourier transforms.
        bandwidth: bytes per second, read and written.
    """

    call: float
    view: float
    rate: float
    fft: float
    bandwidth: float


#: "cpu" is of the order of a current core's measurements, "accelerator" is of the order of recent data sheets.
MACHINES = {
    "cpu": Machine(call=4e-6, view=1e-6, rate=6e10, fft=4e9, bandwidth=1e10),
    "accelerator": Machine(call=8e-6, view=2e-6, rate=1e13, fft=1e12, bandwidth=1.5e12),
}


def price(operations: Sequence[Operation], machine: Machine) -> float:
    """Return the seconds that these operations should take."""
    total = 0.0
    for operation in operations:
        rate = machine.fft if "_fft_" in operation.name else machine.rate
        work = max(operation.macs / rate, operation.bytes / machine.bandwidth)
        total += machine.call + work if operation.bytes else machine.view
    return total


class Plan:
    """The choices for one fabrication and size: an immutable value; what was decided is kept beside it.

    Attributes:
        cls, options: build the fabrication.
        n, dims: the size.
    """

    def __init__(self, cls: type[Fabrication], options: str, n: int, dims: tuple[int, ...]) -> None:
        self.cls, self.options, self.n, self.dims = cls, options, n, dims
        self._decisions: dict[int, dict[str, bool]] = {}
        self._nominal = self._decide(NOMINAL_ROWS)

    def structured(self, first: Tensor) -> bool:
        """Tell whether the fabrication's own product is the way for views like ``first`` (..., n_1)."""
        machine = "cpu" if first.device.type in ("cpu", "meta") else "accelerator"
        if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
            return self._nominal[machine]
        rows = first.numel() // first.shape[-1]
        if type(rows) is not int:  # Symbolic.
            return self._nominal[machine]
        bucket = rows.bit_length()
        decision = self._decisions.get(bucket)
        if decision is None:
            decision = self._decisions[bucket] = self._decide(3 << bucket >> 2)
        return decision[machine]

    def _decide(self, rows: int) -> dict[str, bool]:
        if self.n * sum(self.dims) >= LARGE_W and rows >= MANY_ROWS // 2:
            return dict.fromkeys(MACHINES, True)
        try:
            own, built = apart(lambda: self.operations(max(rows, 1)))
        except Exception:  # It cannot run without data; its author knows best.
            return dict.fromkeys(MACHINES, True)
        return {name: price(own, machine) <= price(built, machine) for name, machine in MACHINES.items()}

    def operations(self, rows: int) -> tuple[list[Operation], list[Operation]]:
        """Return the operations of the own product and of the one with W; to be run on the meta device."""
        from fusionkit.fabrication import linear

        D = sum(self.dims)
        fabrication = build(self.cls, self.cls.__name__, json.loads(self.options))
        _local.planning = True  # This thread ends with the trace.
        fabrication.prepare(self.n, self.dims, device="meta")
        x = [torch.empty(rows, width) for width in self.dims]
        blocks = {name: torch.empty(shape) for name, shape in fabrication.checked_shapes(self.n, D).items()}
        with Recorder() as own:
            fabrication._project(x, blocks, self.n)
        with Recorder() as built:
            linear(x, fabrication._materialize(blocks, self.n, D))
        return own.operations, built.operations

    def __reduce__(self) -> tuple[Any, ...]:
        return plan_of, (self.cls, self.options, self.n, self.dims)

    def __deepcopy__(self, memo: Any) -> Plan:
        return self

    def __repr__(self) -> str:
        return f"Plan({self.cls.__name__}, {self.options}, n={self.n}, dims={self.dims})"


@lru_cache(maxsize=4096)
def plan_of(cls: type[Fabrication], options: str, n: int, dims: tuple[int, ...]) -> Plan:
    """Return the one plan for these arguments."""
    return Plan(cls, options, n, dims)


#: Set in the threads that run a fabrication to make a plan, which need none themselves.
_local = threading.local()


def plan(cls: type[Fabrication], arguments: Mapping[str, Any], n: int, dims: tuple[int, ...]) -> Plan | None:
    """Return the plan of a fabrication built with ``arguments``; None if they cannot be written."""
    if getattr(_local, "planning", False):
        return None
    try:
        options = json.dumps(writable(cls.__name__, arguments), sort_keys=True)
    except (ConfigError, TypeError, ValueError):
        return None
    return plan_of(cls, options, n, dims)
