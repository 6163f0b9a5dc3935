"""``fusionkit bench``: how fast operators are, as ratios to references that are timed in turn with them."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["GRID", "Row", "main", "measure"]

SCHEMA_VERSION = 1

#: (rows, widths of the views, n): tall, square and tiny products, narrow outputs, a single row.
GRID: list[tuple[int, list[int], int]] = [
    (2000, [76, 216, 64, 240, 47, 6], 64),
    (4096, [256] * 4, 256),
    (65536, [64] * 8, 16),
    (16384, [768, 512, 256], 32),
    (64, [512] * 4, 512),
    (1, [512] * 4, 512),
]


@dataclass(frozen=True)
class Row:
    """One measurement: median milliseconds, and the median over the rounds of the ratios.

    Attributes:
        limit: ratio to one product with views that are concatenated already.
        cat_linear: ratio to ``torch.cat`` and ``F.linear``.
    """

    name: str
    m: int
    dims: list[int]
    n: int
    mode: str
    milliseconds: float
    limit: float
    cat_linear: float


def measure(name: str, m: int, dims: Sequence[int], n: int, *, backward: bool, seconds: float) -> Row | None:
    """Time ``parameterized_concatenation`` with a fabrication, or another fusion; None where it cannot have these dims.

    Raises:
        RegistryError: an unknown name.
    """
    import torch
    import torch.nn.functional as F

    from fusionkit import registry
    from fusionkit.bench.timing import interleaved, ratio
    from fusionkit.errors import DimsError

    record = registry.find(name, "fabrication" if name in registry.names("fabrication") else None)
    try:
        if record.kind == "fabrication":
            op = registry.create("parameterized_concatenation", dims=dims, n=n, parameter_fabrication=name)
        else:
            op = registry.create(name, dims=dims, n=n if name == "parameterized_concatenation" else None)
    except DimsError:
        return None
    W = torch.randn(n, sum(dims), requires_grad=backward)
    views = [torch.randn(m, width, requires_grad=backward) for width in dims]
    whole = torch.cat([view.detach() for view in views], -1).requires_grad_(backward)

    def timed(forward: Callable[[], Any], *leaves: Any) -> Callable[[], object]:
        def once() -> object:
            if not backward:
                with torch.no_grad():
                    return forward()
            out = forward()
            return torch.autograd.grad(out, leaves, torch.ones_like(out))

        return once

    samples = interleaved(
        {
            "own": timed(lambda: op(views), *views, *op.parameters()),
            "limit": timed(lambda: F.linear(whole, W), whole, W),
            "cat_linear": timed(lambda: F.linear(torch.cat(views, -1), W), *views, W),
        },
        seconds=seconds,
    )
    return Row(
        record.key,
        m,
        list(dims),
        n,
        "forward and backward" if backward else "forward",
        round(1e3 * median(samples["own"]), 4),
        round(ratio(samples, "own", "limit"), 3),
        round(ratio(samples, "own", "cat_linear"), 3),
    )


def main(argv: Sequence[str]) -> int:
    """Run ``fusionkit bench ARGV`` and return 0."""
    options = _parser().parse_args(argv)
    import torch
    from rich.console import Console
    from rich.progress import track

    from fusionkit.tables import print_table

    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        names = options.names or ["dense", "lowrank"]
        jobs = [(name, *size, backward) for name in names for size in GRID for backward in (False, True)]
        console = Console(stderr=True)
        rows = [
            row
            for name, m, dims, n, backward in track(jobs, "measuring", console=console, disable=not console.is_terminal)
            if (row := measure(name, m, dims, n, backward=backward, seconds=options.seconds)) is not None
        ]
    finally:
        torch.set_num_threads(before)
    print_table(
        ("name", "m", "dims", "n", "mode", "ms", "to the limit", "to cat + linear"),
        [
            (
                *(r.name, str(r.m), _short(r.dims), str(r.n), r.mode),
                *(f"{r.milliseconds:.3f}", f"{r.limit:.2f}", f"{r.cat_linear:.2f}"),
            )
            for r in rows
        ],
    )
    if options.json is not None:
        machine = {"processor": platform.machine(), "threads": options.threads, "torch": torch.__version__}
        content = {"schema_version": SCHEMA_VERSION, "machine": machine, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def _short(dims: Sequence[int]) -> str:
    same = len(dims) > 1 and len(set(dims)) == 1
    return f"{len(dims)}x{dims[0]}" if same else ",".join(map(str, dims))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fusionkit bench",
        description="Measure speed as ratios to one product with concatenated views, and to torch.cat + F.linear.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  fusionkit bench\n  fusionkit bench lowrank monarch --json bench.json",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="fabrications or fusions; default: dense, lowrank")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--threads", type=_positive, default=2, metavar="N", help="threads of torch (default 2)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="per row, about (default 1)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"should be a positive integer; found {text!r}")
    return int(text)
