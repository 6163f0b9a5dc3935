"""Counts what an operator costs, on the meta device, before any memory is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from fusionkit.core.factory import create, create_fabrication
from fusionkit.core.fusion import Fusion
from fusionkit.core.validation import check_dims, check_dtype, check_number, check_size
from fusionkit.errors import FusionError
from fusionkit.kernels.tracing import Recorder, apart
from fusionkit.registry import lookup
from fusionkit.registry.catalogue import OPERATORS


def cost(
    name: str,
    dims: Sequence[int] | None = None,
    n: int | None = None,
    m: int = 1,
    *,
    mask: float | None = None,
    kind: Literal["fusion", "fabrication"] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return what one forward pass of m rows costs, counted by running the operator on the meta device.

    The figures describe the code path of eager mode at this size; the path may depend on ``m``.

    Args:
        name: registry key of a fusion; or of a fabrication, measured inside ``parameterized_concatenation``.
        dims: widths of the views.
        n: width of the output; None where it follows from ``dims``.
        m: number of rows.
        mask: how many of the views are absent, from 0 to 1: counts a call with a mask, whose work does not depend on
            their number; None: a call without one.
        kind: "fusion" or "fabrication"; needed for a name that both kinds have.
        options: options of the operator or of the fabrication; the views have the same ``dtype``.

    Returns:
        A dict of ``name``, ``kind``, ``dims``, ``dtype``; ``n``, ``m``, ``l``; ``macs``, the multiply-adds in matrix
        products (an FFT counts 2.5 N log2 N); ``elementwise``, the number of other arithmetic operations;
        ``parameter_bytes``, ``buffer_bytes`` (frozen parts), ``output_bytes``; and ``peak_activation_bytes``, the most
        memory that results occupy at one time, with the output, without views and parameters.

    Raises:
        DimsError: no ``dims``, or widths that do not fit.
        FusionError: the operator cannot run on the meta device.
        RegistryError: ``name`` is unknown, or both kinds have it.
    """
    widths = check_dims(dims)
    rows = check_size("m, the number of rows,", m)
    if mask is not None and not 0 <= check_number("mask, the share of absent views,", mask) <= 1:
        raise FusionError(f"mask, the share of absent views, should be from 0 to 1; found {mask!r}.")
    options.pop("device", None)
    dtype = check_dtype(options.get("dtype")) or torch.get_default_dtype()
    found = lookup.find(name, kind or OPERATORS).kind

    def run() -> dict[str, Any]:
        return _measure(_build(name, found, n, widths, options).eval(), widths, rows, dtype, mask is not None)

    return {"name": name, "kind": found, "dims": list(widths), "dtype": str(dtype).removeprefix("torch."), **apart(run)}


def _build(name: str, kind: str, n: int | None, widths: tuple[int, ...], options: dict[str, Any]) -> Fusion:
    """Return the operator on the meta device; for a fabrication the parameterized concatenation with it."""
    if kind == "fusion":
        return create(name, n=n, dims=widths, device="meta", **options)
    factory = {"dtype": options.pop("dtype")} if "dtype" in options else {}
    made = create_fabrication(name, **options)
    concatenation = "parameterized_concatenation"
    return create(concatenation, n=n, dims=widths, parameter_fabrication=made, device="meta", **factory)


def _measure(op: Fusion, widths: tuple[int, ...], rows: int, dtype: torch.dtype, masked: bool) -> dict[str, int]:
    x = [torch.empty(rows, width, dtype=dtype) for width in widths]
    mask = torch.empty(rows, len(widths), dtype=torch.bool) if masked else None
    w = None if op.require_parameters else torch.empty(op.calculate_l(), dtype=dtype)
    # Not recorded: the first call may itself count operations on the meta device, to choose a path.
    _forward(op, x, w, mask)
    with Recorder() as recorder:
        out = _forward(op, x, w, mask)
    operations = recorder.operations
    return {
        "n": op.calculate_n(),
        "m": rows,
        "l": op.calculate_l(),
        "macs": sum(operation.macs for operation in operations),
        "elementwise": sum(operation.elementwise for operation in operations),
        "parameter_bytes": sum(p.numel() * p.element_size() for p in op.parameters()),
        "buffer_bytes": sum(b.numel() * b.element_size() for b in op.buffers()),
        "output_bytes": out.numel() * out.element_size(),
        "peak_activation_bytes": recorder.peak,
    }


def _forward(op: Fusion, x: Sequence[torch.Tensor], w: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor:
    try:
        return op(x, w, mask=mask)  # type: ignore[no-any-return]
    except FusionError:
        raise
    except Exception as error:
        should = "run on the meta device, where tensors have no values"
        raise FusionError(f"{op.name} should {should}; found {type(error).__name__}: {error}.") from error
