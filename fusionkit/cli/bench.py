"""``fusionkit bench``: how fast operators are, as ratios to references that are timed in turn with them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from fusionkit.cli.arguments import Parser, check_folder
from fusionkit.errors import ConfigError, FusionError

if TYPE_CHECKING:
    from fusionkit.bench.cases import Case
    from fusionkit.bench.measure import Row

__all__ = ["main"]

SCHEMA_VERSION = 1

#: Upper over lower quartile of the repetitions, from which on the milliseconds are doubtful.
RESTLESS = 1.5

RATIOS = {
    "limit": "x limit",
    "cat_linear": "x cat+linear",
    "addmm": "x addmm",
    "of_bound": "x bound",
    "built": "x built",
    "product": "x product",
    "library": "x tinybig",
    "compiled": "x compiled",
}

DESCRIPTION = """\
Measure speed and memory.  Each operator is timed in turn with its references, so that the ratios hold on a noisy
machine; below 1 the operator is faster.
  limit         one product with views that are concatenated already; of elementwise fusions: adding the views up
  cat+linear    torch.cat, then F.linear
  addmm         addmm_ view by view (of the dense product)
  bound         1.15 of the better of these two (with gradients 1.2; 1.35, 1.4 for more than 100 views), and the call:
                4 (6) calls of nn.Linear(1, 1), and 1 us per view
  built         W built, then multiplied by; of elementwise fusions: the views stacked, then reduced by torch
  product       the fabrication's own product, without W, where W was built
  tinybig       the reference library, if it is installed
  compiled      what torch.compile makes of the operator (--compile)
A fabrication stands for parameterized_concatenation with it; "way" is what that chose: its own product, or W.
"ms" is the median of the repetitions, a ratio that of the lower quartiles, which other work on the machine moves less.
"extra MB" is what the tensors made during the call take at the same time, results included, at most."""

EXAMPLES = """\
examples:
  fusionkit bench --json bench.json --plot bench.png
  fusionkit bench --quick
  fusionkit bench lowrank monarch
  fusionkit bench kronecker p=8 q=8 m=256 dims=[1024,1024] n=512"""


def main(argv: Sequence[str]) -> int:
    """Run ``fusionkit bench ARGV`` and return the exit status."""
    options = _parser().parse_intermixed_args(argv)
    for file in (options.json, options.plot):
        check_folder(file)
    import torch

    from fusionkit.fusion import check_device

    try:
        device = check_device(options.device) or torch.device("cpu")
        cases = _cases(options)
    except FusionError as error:  # Of the command line.
        raise ConfigError(str(error)) from error
    if device.type == "meta":
        raise ConfigError("--device should be one that computes, such as cpu or cuda; found 'meta'.")
    if options.plot is not None and not _drawable(cases):
        raise ConfigError(
            f"{options.plot} should show an operator at several numbers of rows; found one: give them, as in "
            "m=16,256,4096, or neither --quick nor m."
        )
    if options.processor_time and (options.threads > 1 or device.type != "cpu"):
        raise ConfigError("--processor-time should be used with --threads 1 on the cpu; found more of them.")
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    try:
        _measure(rows, cases, options, device)
    except KeyboardInterrupt:
        if rows:
            _report(rows, options, device)  # What there is.
        raise
    except FusionError as error:  # An option that does not fit.
        raise ConfigError(str(error)) from error
    finally:
        torch.set_num_threads(before)
    if not rows:
        names = ", ".join(dict.fromkeys(case.name for case in cases))
        raise ConfigError(f"{names} should take views of the measured widths; found none that fit.")
    _report(rows, options, device)
    return 0


def _report(rows: Sequence[Row], options: argparse.Namespace, device: Any) -> None:
    _print(rows)
    if restless := sum(row.spread > RESTLESS for row in rows):
        print(
            f"warning: in {restless} of {len(rows)} rows the times of the operator or of a reference differ by more "
            f"than {RESTLESS - 1:.0%} between the quartiles, because of other work on the machine: --threads 1 "
            "--processor-time does not count that",
            file=sys.stderr,
        )
    if options.json is not None:
        head = {"schema_version": SCHEMA_VERSION, "machine": _machine(options, device)}
        lines = ",\n".join(json.dumps(asdict(row)) for row in rows)  # A line for each.
        options.json.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    if options.plot is not None:
        from fusionkit.bench.plot import draw

        if not draw(rows, options.plot):  # An interruption.
            print(f"{options.plot} is not drawn: it would show one number of rows", file=sys.stderr)


def _drawable(cases: Sequence[Case]) -> bool:
    """Whether one operator is measured at one size with more than one number of rows."""
    from fusionkit.bench.cases import label

    sizes = {(label(case.name, case.options), case.size) for case in cases if not case.backward}
    return len({(name, size._replace(m=0)) for name, size in sizes}) < len(sizes)


def _cases(options: argparse.Namespace) -> list[Case]:
    from fusionkit.bench.cases import cases, default_cases
    from fusionkit.cli.show import parse

    names = [name for name in options.names if "=" not in name]
    settings = parse([name for name in options.names if "=" in name])
    if not names:
        if settings:
            raise ConfigError(f"options should follow the name of an operator; found {', '.join(settings)} alone.")
        return list(default_cases(quick=options.quick))
    return [case for name in names for case in cases(name, settings, quick=options.quick)]


def _measure(rows: list[Row], cases: Sequence[Case], options: argparse.Namespace, device: Any) -> None:
    """Append the rows, one by one."""
    from rich.console import Console
    from rich.progress import Progress

    from fusionkit.bench.cases import label
    from fusionkit.bench.measure import measure

    seconds = options.seconds if options.seconds is not None else 0.2 if options.quick else 0.6
    clock = process_time if options.processor_time else perf_counter
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress, warnings.catch_warnings():
        # Of torch's own threads, in the first derivative on a GPU.
        warnings.filterwarnings("ignore", "Attempting to run cuBLAS")
        task = progress.add_task("", total=len(cases))
        for case in cases:
            size = case.size
            text = f"{label(case.name, case.options)}  m={size.m} {_short(size.dims)} n={size.n}"
            progress.update(task, description=text)
            row = measure(case, seconds=seconds, device=device, compiled=options.compile, clock=clock)
            rows += [row] if row is not None else []
            progress.advance(task)


def _print(rows: Sequence[Row]) -> None:
    from fusionkit._util.tables import print_table
    from fusionkit.bench.cases import label

    shown = [field for field in RATIOS if any(getattr(row, field) is not None for row in rows)]
    print_table(
        (
            "name",
            "m",
            "dims",
            "n",
            "dtype",
            "mode",
            "ms",
            *(RATIOS[field] for field in shown),
            "way",
            "extra MB",
            "error",
        ),
        [
            (
                label(row.name, row.options),
                row.m,
                _short(row.dims),
                row.n,
                row.dtype + (" > 0" if row.positive else ""),
                row.mode,
                f"{row.milliseconds:.3f}",
                *(None if (value := getattr(row, field)) is None else f"{value:.2f}" for field in shown),
                None if row.skips_materialization is None else "own" if row.skips_materialization else "W",
                f"{row.extra_bytes / 1e6:.3g}",
                None if row.error is None else f"{row.error:.1e}",
            )
            for row in rows
        ],
        whole=("name",),
    )


def _short(dims: Sequence[int]) -> str:
    same = len(dims) > 1 and len(set(dims)) == 1
    return f"{len(dims)}x{dims[0]}" if same else ",".join(map(str, dims))


def _machine(options: argparse.Namespace, device: Any) -> dict[str, Any]:
    import torch

    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif sys.platform == "linux":
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), name)
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "device": str(device),
        "threads": options.threads,
        "clock": "processor" if options.processor_time else "wall",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _parser() -> Parser:
    parser = Parser(
        prog="fusionkit bench",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME | KEY=VALUE",
        help="fabrications or fusions (default: all of the core), with options; m (one or several: m=16,256,4096), "
        "dims, n, dtype replace the grid's",
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes and less time for each: about a minute")
    parser.add_argument("--compile", action="store_true", help="also time what torch.compile makes of the operator")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw time against m to a PNG file")
    parser.add_argument("--threads", type=_positive, default=2, metavar="N", help="threads of torch (default 2)")
    parser.add_argument(
        "--processor-time", action="store_true", help="count the time on the processor: for a busy machine, --threads 1"
    )
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="per row, about (default 0.6; with --quick 0.2)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"should be a positive integer; found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"should be a number of seconds; found {text!r}")
    return value
