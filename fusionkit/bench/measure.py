"""One measurement: an operator against its references, in turn with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionkit import registry
from fusionkit.bench.cases import Case
from fusionkit.bench.reference_library import counterpart
from fusionkit.bench.timing import interleaved, ratio, spread
from fusionkit.core.factory import create, create_fabrication
from fusionkit.errors import DimsError
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion
from fusionkit.kernels.tracing import Recorder

__all__ = ["Row", "measure"]

#: A function, and the tensors for which its result is differentiated.
Contestant = tuple[Callable[[], Tensor], Sequence[Tensor]]

#: Elementwise fusions, and how torch reduces a stack of the views (k, ..., n); ``metric`` does that itself.
STACKED: dict[str, Callable[[Tensor], Tensor] | None] = {
    "summation": lambda stack: stack.sum(0),
    "average": lambda stack: stack.mean(0),
    "weighted_summation": lambda stack: stack.sum(0),
    "parameterized_weighted_summation": lambda stack: stack.sum(0),
    "maximum": lambda stack: stack.amax(0),
    "minimum": lambda stack: stack.amin(0),
    "product": lambda stack: stack.prod(0),
    "median": lambda stack: stack.median(0).values,
    "l1_norm": lambda stack: torch.linalg.vector_norm(stack, 1, 0),
    "l2_norm": lambda stack: torch.linalg.vector_norm(stack, 2, 0),
    "metric": None,
}
#: Rows whose error is looked at.
ERROR_ROWS = 256


@dataclass(frozen=True)
class Row:
    """What was found; ratios are those of lower quartiles, None where there is no such reference.

    Attributes:
        milliseconds: median time of a call.
        limit: ratio to one product with views that are concatenated already; of an elementwise fusion, to adding up
            the views in place; of the concatenation, to ``torch.cat``.
        cat_linear: ratio to ``torch.cat`` and ``F.linear``.
        built: ratio to the form that the operator avoids: W is built, then multiplied by; or the views are stacked,
            then reduced by torch.
        product: ratio to the fabrication's own product, where that was not the way.
        library: ratio to the reference library, tinybig, if that is installed.
        compiled: ratio of the operator to what torch.compile makes of it.
        skips_materialization: of a fabrication, whether W was not built (``fusionkit.kernels.planning``).
        extra_bytes: of the tensors made during the call that lived at the same time, results included, at most.
        error: rms error of the result relative to its rms, against float64.
        spread: upper quartile of the times of a call over the lower one, the greatest of the operator's and of its
            references'.
    """

    name: str
    options: Mapping[str, Any]
    kind: str
    m: int
    dims: list[int]
    n: int
    dtype: str
    positive: bool
    mode: str
    milliseconds: float
    limit: float | None
    cat_linear: float | None
    built: float | None
    product: float | None
    library: float | None
    compiled: float | None
    skips_materialization: bool | None
    extra_bytes: int
    error: float | None
    spread: float = 1.0


def measure(
    case: Case,
    *,
    seconds: float,
    device: torch.device | str = "cpu",
    compiled: bool = False,
    clock: Callable[[], float] = perf_counter,
) -> Row | None:
    """Time one case for about so many seconds; None where the operator cannot have its widths.

    Raises:
        RegistryError: an unknown name.
        FusionError: an option that does not fit.
    """
    size, kind = case.size, case.kind
    record = registry.find(case.name, kind)
    try:
        op = _build(case, device)
    except DimsError:
        if kind == "fabrication" or case.options:
            raise
        return None
    draw = torch.rand if size.positive else torch.randn
    dtype = getattr(torch, size.dtype)
    x = [draw(size.m, width, device=device, dtype=dtype).requires_grad_(case.backward) for width in size.dims]
    if size.positive:
        with torch.no_grad():
            for parameter in op.parameters():
                parameter.abs_()
    leaves = [*x, *op.parameters()]
    contestants: dict[str, Contestant] = {"own": (lambda: op(x), leaves), **_references(record.key, op, x, leaves)}
    if compiled:
        fast = torch.compile(op)
        contestants["compiled"] = (lambda: fast(x), leaves)
    timed = {name: _both(*pair) if case.backward else _forward(pair[0]) for name, pair in contestants.items()}
    wait = None if torch.device(device).type == "cpu" else torch.get_device_module(device).synchronize
    samples = interleaved(timed, seconds=seconds, synchronize=wait, clock=clock)
    with Recorder() as recorder:
        kept = timed["own"]()
    del kept

    fabrication = getattr(op, "fabrication", None)

    def to(name: str) -> float | None:
        return round(ratio(samples, "own", name), 3) if name in samples else None

    return Row(
        record.key,
        dict(case.options),
        kind,
        size.m,
        list(size.dims),
        op.calculate_n(),
        size.dtype,
        size.positive,
        "forward and backward" if case.backward else "forward",
        round(1e3 * median(samples["own"]), 4),
        to("limit"),
        to("cat_linear"),
        to("built"),
        to("product"),
        to("library"),
        to("compiled"),
        fabrication.skips_materialization(x) if isinstance(fabrication, Fabrication) else None,
        recorder.peak,
        None if case.backward else _error(op, x),
        round(max(map(spread, samples.values())), 2),
    )


def _build(case: Case, device: torch.device | str) -> Fusion:
    size = case.size
    factory: dict[str, Any] = {"dims": size.dims, "device": device, "dtype": size.dtype}
    if case.kind == "fabrication":
        made = create_fabrication(case.name, **case.options)
        return create("parameterized_concatenation", n=size.n, parameter_fabrication=made, **factory)
    cls: Any = registry.load("fusion", case.name)
    n = {"n": size.n} if cls.traits.free_n else {}
    return create(case.name, **{**factory, **n, **case.options})


def _references(key: str, op: Fusion, x: Sequence[Tensor], leaves: Sequence[Tensor]) -> dict[str, Contestant]:
    """Return what the operator is compared with, by name."""
    n, widths, grad = op.calculate_n(), [view.shape[-1] for view in x], x[0].requires_grad
    if key in STACKED:
        found: dict[str, Contestant] = {"limit": (lambda: _add_up(x), x)}
        if (reduce := STACKED[key]) is not None:
            found["built"] = (lambda: reduce(torch.stack(tuple(x))), x)
    elif key == "concatenation":
        found = {"limit": (lambda: torch.cat(tuple(x), -1), x)}
    else:
        # A matrix for each, as the operator has its own: the second of two to use one would find it in the cache.
        W = torch.randn(n, sum(widths), device=x[0].device, dtype=x[0].dtype, requires_grad=grad)
        other = torch.randn_like(W, requires_grad=grad)
        whole = torch.cat([view.detach() for view in x], -1).requires_grad_(grad)
        found = {
            "limit": (lambda: F.linear(whole, W), [whole, W]),
            "cat_linear": (lambda: F.linear(torch.cat(tuple(x), -1), other), [*x, other]),
        }
    fabrication = getattr(op, "fabrication", None)
    if isinstance(fabrication, Fabrication) and not fabrication.is_dense:
        blocks = dict(op.named_parameters())
        found["built"] = (lambda: fabrication.multiply_built(x, blocks, n), leaves)
        if not fabrication.skips_materialization(x):
            found["product"] = (lambda: fabrication._project(x, blocks, n), leaves)
    library = counterpart("dense" if key == "parameterized_concatenation" else key, widths, n, x[0].device)
    if library is not None:
        found["library"] = (lambda: library(x), x)
    return found


def _add_up(x: Sequence[Tensor]) -> Tensor:
    out = x[0] + x[1] if len(x) > 1 else x[0].clone()
    for view in x[2:]:
        out += view
    return out


def _forward(call: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return call()

    return run


def _both(call: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Callable[[], object]:
    def run() -> object:
        out = call()
        return torch.autograd.grad(out, leaves, torch.ones_like(out), allow_unused=True) if out.requires_grad else out

    return run


def _error(op: Fusion, x: Sequence[Tensor]) -> float | None:
    """Return the rms error of the first rows relative to the rms of the exact ones."""
    reference = getattr(op, "reference", None)
    if reference is None:
        return None
    with torch.no_grad():
        exact = reference([view[:ERROR_ROWS] for view in x])
        found = op(x)[:ERROR_ROWS].to(exact)  # A reference by way of numpy is on the host.
    scale = float(exact.square().mean().sqrt())
    return float(f"{float((found - exact).square().mean().sqrt()) / scale:.3g}") if scale else None
