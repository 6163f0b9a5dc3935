"""Compares the operators of a package with straightforward implementations of their formulas, for its own ``bench``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

from fusionkit.bench.timing import interleaved, ratio
from fusionkit.core import factory
from fusionkit.kernels.tracing import Allocations

NOTE = "time, +bwd, memory: ratios to the reference; below 1 is better"


@dataclass(frozen=True)
class Row:
    """One comparison; ratios are operator over reference, medians over rounds in which both took turns.

    Attributes:
        forward, both: milliseconds of the operator's processor time, forward and forward with backward.
        forward_ratio, both_ratio: ratios of these times.
        memory_ratio: ratio of the peak memory in forward and backward, without views and parameters.
    """

    name: str
    m: int
    dims: list[int]
    n: int
    l: int
    forward: float
    both: float
    forward_ratio: float
    both_ratio: float
    memory_ratio: float


class Reference(nn.Module):
    """Layers by name; ``compute`` is the formula."""

    def __init__(self, compute: Callable[[Any, Sequence[Tensor]], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Return the fused views, x: k views (m, n_i) -> (m, n)."""
        return self.compute(self, x)


#: operator -> its reference, of the same sizes as the operator that is given.
References = Mapping[str, Callable[[Any], nn.Module]]


@dataclass(frozen=True)
class Job:
    """One comparison to make: an operator at a size.

    Attributes:
        name: of the operator.
        m: rows.
        dims: widths of the views.
        n: width of the output; None where it follows from the views.
        options: of the operator.
    """

    name: str
    m: int
    dims: Sequence[int]
    n: int | None = None
    options: Mapping[str, Any] | None = None

    def measure(self, references: References, seconds: float = 2.0) -> Row:
        """Compare the operator with its reference, for about ``seconds`` in each direction."""
        options = {**({} if self.n is None else {"n": self.n}), **(self.options or {})}
        op: Any = factory.create(self.name, dims=list(self.dims), **options)
        reference = references[self.name](op)
        views = [torch.randn(self.m, width, requires_grad=True) for width in self.dims]
        contestants: dict[str, nn.Module] = {"own": op, "reference": reference}

        def timed(call: Callable[..., Any]) -> dict[str, list[float]]:
            calls = {key: partial(call, module, views) for key, module in contestants.items()}
            return interleaved(calls, seconds=seconds, least=3, clock=process_time)

        once, twice = timed(_forward), timed(_both)
        return Row(
            self.name,
            self.m,
            list(self.dims),
            op.calculate_n(),
            op.calculate_l(),
            round(1e3 * median(once["own"]), 3),
            round(1e3 * median(twice["own"]), 3),
            round(ratio(once, "own", "reference"), 3),
            round(ratio(twice, "own", "reference"), 3),
            round(_peak(op, views) / max(1, _peak(reference, views)), 3),
        )


def _forward(module: nn.Module, views: Sequence[Tensor]) -> object:
    with torch.no_grad():
        return module(views)


def _both(module: nn.Module, views: Sequence[Tensor]) -> object:
    out = module(views)
    return torch.autograd.grad(out, [*views, *module.parameters()], torch.ones_like(out))


def _peak(module: nn.Module, views: Sequence[Tensor]) -> int:
    """Return the most bytes that forward and backward hold beside views and parameters."""
    with Allocations([*views, *module.parameters(), *module.buffers()]) as counter:
        _both(module, views)
    held: int = counter.peak
    return held


def parser(prog: str, description: str, operators: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the options that every such ``bench`` has."""
    made = argparse.ArgumentParser(prog=prog, description=description)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("names", nargs="*", choices=[*operators, []], metavar="NAME", help="operators; default: all")
    made.add_argument("--seconds", type=float, default=2.0, metavar="S", help="per operator and direction (default 2)")
    made.add_argument("--threads", type=int, default=1, metavar="N", help="threads of torch (default 1)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    return made


def compare(jobs: Sequence[Job], references: References, options: argparse.Namespace) -> int:
    """Make the comparisons and print a line of each; write them as JSON where ``--json`` is given.  Returns 0."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    print(f"{'operator':27}{'m; dims; n':>28}{'l':>11}{'ms':>9}{'+bwd ms':>9}{'time':>7}{'+bwd':>7}{'memory':>8}")
    for job in jobs:
        row = job.measure(references, options.seconds)
        rows.append(row)
        at = f"{row.m}; {_widths(row.dims)}; {row.n}"
        print(
            f"{row.name:27}{at:>28}{row.l:>11}{row.forward:>9.2f}{row.both:>9.2f}"
            f"{row.forward_ratio:>7.2f}{row.both_ratio:>7.2f}{row.memory_ratio:>8.2f}",
            flush=True,
        )
    print(NOTE)
    if options.json is not None:
        content = {"threads": options.threads, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def _widths(dims: Sequence[int]) -> str:
    """Return ``6x100`` for six equal widths, else the widths."""
    return f"{len(dims)}x{dims[0]}" if len(dims) > 2 and len(set(dims)) == 1 else ",".join(map(str, dims))
