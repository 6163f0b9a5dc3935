"""One measurement: an operator, timed in turn with its references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionkit import registry
from fusionkit.bench.cases import Case
from fusionkit.bench.reference_library import counterpart
from fusionkit.bench.timing import interleaved, lower_quartile, ratio, spread
from fusionkit.core.factory import create, create_fabrication
from fusionkit.errors import DimsError
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion
from fusionkit.kernels.tracing import Recorder

#: A function, and the tensors with respect to which its result is differentiated.
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
#: The bound of the dense product: the first number (for more than MANY_VIEWS views the second) times the better of
#: ``cat_linear`` and ``addmm``, plus the third times a call of nn.Linear(1, 1), plus PER_VIEW seconds for each view.
BOUNDS = {"forward": (1.15, 1.35, 4), "forward and backward": (1.2, 1.4, 6)}
MANY_VIEWS, PER_VIEW = 100, 1e-6
#: The references, which ``fusionkit bench --help`` describes.
REFERENCES = ("limit", "cat_linear", "addmm", "built", "product", "library", "compiled", "zeros")
#: The bound of a call with a mask: the first number times the operator on views that hold the zeros, plus the second
#: times a copy of the views.
MASK_BOUND = (1.15, 1.5)
#: The error is computed from this many rows.
ERROR_ROWS = 256


@dataclass(frozen=True)
class Row:
    """A result.

    Attributes:
        milliseconds: median time of a call.
        ratios: of the lower quartile of the times to that of each of ``REFERENCES``, and ``of_bound``, to the bound
            of the dense product (``BOUNDS``) or of a call with a mask (``MASK_BOUND``); None where there is none.
        skips_materialization: of a fabrication, whether W was not built (``fusionkit.kernels.planning``).
        extra_bytes: peak memory of the tensors made during the call, results included.
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
    ratios: Mapping[str, float | None]
    skips_materialization: bool | None
    extra_bytes: int
    error: float | None
    spread: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the row in plain JSON types, each ratio as a field."""
        fields = asdict(self)
        ratios = fields.pop("ratios")
        return {**fields, **ratios}


def measure(
    case: Case,
    *,
    seconds: float,
    device: torch.device | str = "cpu",
    compiled: bool = False,
    mask: float | None = None,
    clock: Callable[[], float] = perf_counter,
) -> Row | None:
    """Time one case for about ``seconds``; return None where the operator does not accept its widths, or masks.

    With ``mask``, the share of absent views, the references are ``zeros`` and the copy of ``MASK_BOUND``.

    Raises:
        RegistryError: an unknown name.
        FusionError: an option that does not fit.
    """
    kind = case.kind
    record = registry.find(case.name, kind)
    try:
        op = _build(case, device)
    except DimsError:
        if kind == "fabrication" or case.options:
            raise
        return None
    if mask is not None and not op.takes_masks:
        return None
    x = _views(case, op, device)
    timed = _contestants(record.key, case, op, x, compiled) if mask is None else _masked(case, op, x, mask)
    wait = None if torch.device(device).type == "cpu" else torch.get_device_module(device).synchronize
    samples = interleaved(timed, seconds=seconds, synchronize=wait, clock=clock)
    with Recorder() as recorder:
        _result = timed["own"]()  # Kept: it counts.
    mode = "forward and backward" if case.backward else "forward"
    fabrication = getattr(op, "fabrication", None)
    size = case.size._asdict() | {"dims": list(case.size.dims), "n": op.calculate_n()}
    ratios = {name: round(ratio(samples, "own", name), 3) if name in samples else None for name in REFERENCES}
    return Row(
        name=record.key,
        options=dict(case.options),
        kind=kind,
        **size,
        mode=mode,
        milliseconds=round(1e3 * median(samples["own"]), 4),
        ratios={**ratios, "of_bound": _of_bound(samples, mode, len(x), mask is not None)},
        skips_materialization=fabrication.skips_materialization(x) if isinstance(fabrication, Fabrication) else None,
        extra_bytes=recorder.peak,
        error=None if case.backward else _error(op, x),
        spread=round(max(map(spread, samples.values())), 2),
    )


def _contestants(
    key: str, case: Case, op: Fusion, x: Sequence[Tensor], compiled: bool
) -> dict[str, Callable[[], object]]:
    """Return the functions to time, by name, the operator first: without gradients, or with the backward pass."""
    leaves = [*x, *op.parameters()]
    contestants: dict[str, Contestant] = {"own": (lambda: op(x), leaves), **_references(key, op, x, leaves)}
    if compiled:
        fast = torch.compile(op)
        contestants["compiled"] = (lambda: fast(x), leaves)
    return {name: _timed(*pair, case.backward) for name, pair in contestants.items()}


def _masked(case: Case, op: Fusion, x: Sequence[Tensor], share: float) -> dict[str, Callable[[], object]]:
    """Return the functions to time for a mask with this share of absent views: the operator, and its references."""
    mask = torch.rand(len(x[0]), len(x), device=x[0].device) >= share
    zeros = [
        torch.where(mask[:, i : i + 1], view.detach(), 0.0).requires_grad_(case.backward) for i, view in enumerate(x)
    ]
    parameters = list(op.parameters())
    return {
        "own": _timed(lambda: op(x, mask=mask), [*x, *parameters], case.backward),
        "zeros": _timed(lambda: op(zeros), [*zeros, *parameters], case.backward),
        "copy": lambda: [view.detach().clone() for view in x],
    }


def _views(case: Case, op: Fusion, device: torch.device | str) -> list[Tensor]:
    """Return random views; for a positive case make them and the parameters positive."""
    size = case.size
    draw = torch.rand if size.positive else torch.randn
    dtype = getattr(torch, size.dtype)
    if size.positive:
        with torch.no_grad():
            for parameter in op.parameters():
                parameter.abs_()
    return [draw(size.m, width, device=device, dtype=dtype).requires_grad_(case.backward) for width in size.dims]


def _of_bound(samples: Mapping[str, Sequence[float]], mode: str, views: int, masked: bool = False) -> float | None:
    """Return the time of the dense product divided by its bound (``BOUNDS``), or of a call with a mask."""
    if masked:
        own, zeros, copy = (lower_quartile(samples[name]) for name in ("own", "zeros", "copy"))
        return round(own / (MASK_BOUND[0] * zeros + MASK_BOUND[1] * copy), 3)
    if "call" not in samples:
        return None
    few, many, calls = BOUNDS[mode]
    own, cat_linear, addmm, call = (lower_quartile(samples[name]) for name in ("own", "cat_linear", "addmm", "call"))
    allowed = (many if views > MANY_VIEWS else few) * min(cat_linear, addmm) + calls * call + PER_VIEW * views
    return round(own / allowed, 3)


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
    """Return the references of the operator, by name."""
    n, widths, grad = op.calculate_n(), [view.shape[-1] for view in x], x[0].requires_grad
    if key in STACKED:
        found: dict[str, Contestant] = {"limit": (lambda: _add_up(x), x)}
        if (reduce := STACKED[key]) is not None:
            found["built"] = (lambda: reduce(torch.stack(tuple(x))), x)
    elif key == "concatenation":
        found = {"limit": (lambda: torch.cat(tuple(x), -1), x)}
    else:
        # A matrix for each: a shared one would already be in the cache for the second reference.
        W = torch.randn(n, sum(widths), device=x[0].device, dtype=x[0].dtype, requires_grad=grad)
        other = torch.randn_like(W, requires_grad=grad)
        whole = torch.cat([view.detach() for view in x], -1).requires_grad_(grad)
        found = {
            "limit": (lambda: F.linear(whole, W), [whole, W]),
            "cat_linear": (lambda: F.linear(torch.cat(tuple(x), -1), other), [*x, other]),
        }
    fabrication = getattr(op, "fabrication", None)
    if isinstance(fabrication, Fabrication):
        if not fabrication.is_dense:
            blocks = dict(op.named_parameters())
            found["built"] = (lambda: fabrication.multiply_built(x, blocks, n), leaves)
            if not fabrication.skips_materialization(x):
                found["product"] = (lambda: fabrication._project(x, blocks, n), leaves)
        elif len(x) > 1:
            third, smallest = torch.randn_like(W, requires_grad=grad), torch.nn.Linear(1, 1, device=x[0].device)
            one = torch.ones(1, 1, device=x[0].device)
            found["addmm"] = (lambda: _view_by_view(x, third), [*x, third])
            found["call"] = (lambda: smallest(one), [])
    library = counterpart("dense" if key == "parameterized_concatenation" else key, widths, n, x[0].device)
    if library is not None:
        found["library"] = (lambda: library(x), x)
    return found


def _view_by_view(x: Sequence[Tensor], W: Tensor) -> Tensor:
    pieces = W.t().split([view.shape[-1] for view in x])
    out = torch.mm(x[0], pieces[0])
    for view, piece in zip(x[1:], pieces[1:], strict=True):
        out.addmm_(view, piece)
    return out


def _add_up(x: Sequence[Tensor]) -> Tensor:
    out = x[0] + x[1] if len(x) > 1 else x[0].clone()
    for view in x[2:]:
        out += view
    return out


def _timed(call: Callable[[], Tensor], leaves: Sequence[Tensor], backward: bool) -> Callable[[], object]:
    def forward() -> object:
        with torch.no_grad():
            return call()

    def both() -> object:
        out = call()
        if not leaves or not out.requires_grad:
            return out
        return torch.autograd.grad(out, leaves, torch.ones_like(out), allow_unused=True)

    return both if backward else forward


def _error(op: Fusion, x: Sequence[Tensor]) -> float | None:
    """Return the rms error of the first rows relative to the rms of the exact ones."""
    if (reference := getattr(op, "reference", None)) is None:
        return None
    with torch.no_grad():
        exact = reference([view[:ERROR_ROWS] for view in x])
        found = op(x)[:ERROR_ROWS].to(exact)  # A reference may compute with numpy, on the host.
    scale = float(exact.square().mean().sqrt())
    return float(f"{float((found - exact).square().mean().sqrt()) / scale:.3g}") if scale else None
