"""What ``fusionkit bench`` does: the speed of operators, as ratios to references that are timed in turn with them."""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from fusionkit._util.progress import ProgressBar
from fusionkit._util.tables import print_table
from fusionkit.bench import measure
from fusionkit.bench.cases import Case, cases, default_cases, label
from fusionkit.bench.measure import Row
from fusionkit.cli.commands import wrong_usage
from fusionkit.cli.show import parse
from fusionkit.errors import ConfigError
from fusionkit.fusion import check_device

SCHEMA_VERSION = 1

#: A row whose upper quartile of the repetitions is more than this multiple of the lower one is doubtful.
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
    "zeros": "x zeros",
}


def run_benchmarks(
    *,
    names: tuple[str, ...],
    quick: bool,
    device_name: str,
    json_file: Path | None,
    plot_file: Path | None,
    threads: int,
    processor_time: bool,
    seconds: float | None,
    compiled: bool,
    mask: float | None,
) -> None:
    """Measure operators and print a table.  The arguments are the options of the command."""
    with wrong_usage():
        device = check_device(device_name) or torch.device("cpu")
        chosen = _cases(names, quick)
    if device.type == "meta":
        raise ConfigError("--device should be one that computes, such as cpu or cuda; found 'meta'.")
    if processor_time and (threads > 1 or device.type != "cpu"):
        found = f"--threads {threads} on {device}"
        raise ConfigError(f"--processor-time should be used with --threads 1 on the cpu; found {found}.")
    if plot_file is not None and not _drawable(chosen):
        found = "one. Give several, as in m=16,256,4096, or leave out --quick and m"
        raise ConfigError(f"{plot_file} should show an operator at several numbers of rows; found {found}.")
    seconds = seconds if seconds is not None else 0.2 if quick else 0.6
    clock = process_time if processor_time else perf_counter
    machine = _machine(device) | {"threads": threads, "clock": "processor" if processor_time else "wall", "mask": mask}
    rows: list[Row] = []
    try:
        with wrong_usage(), ExitStack() as stack:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
            for case in _progress(chosen):
                row = measure.measure(case, seconds=seconds, device=device, compiled=compiled, mask=mask, clock=clock)
                rows += [row] if row is not None else []
    finally:  # Also of an interruption.
        _report(rows, json_file, plot_file, machine)
    if not rows:
        found = ", ".join(dict.fromkeys(case.name for case in chosen))
        taken = "views of the measured widths" + (" and masks" if mask is not None else "")
        raise ConfigError(f"{found} should take {taken}; found none that fit.")


def _cases(names: Sequence[str], quick: bool) -> list[Case]:
    operators = [name for name in names if "=" not in name]
    settings = parse([name for name in names if "=" in name])
    if operators:
        return [case for name in operators for case in cases(name, settings, quick=quick)]
    if settings:
        raise ConfigError(f"options should follow the name of an operator; found {', '.join(settings)} alone.")
    return list(default_cases(quick=quick))


def _drawable(chosen: Sequence[Case]) -> bool:
    """Whether one operator is measured at one size with more than one number of rows."""
    sizes = {(label(case.name, case.options), case.size) for case in chosen if not case.backward}
    return len({(name, size._replace(m=0)) for name, size in sizes}) < len(sizes)


def _progress(chosen: Sequence[Case]) -> Iterator[Case]:
    """Yield the cases; on a terminal, with a progress bar that shows which is being measured."""
    with ProgressBar(len(chosen), shown=sys.stderr.isatty()) as progress, warnings.catch_warnings():
        # A warning from torch's own threads, at the first derivative on a GPU.
        warnings.filterwarnings("ignore", "Attempting to run cuBLAS")
        for done, case in enumerate(chosen):
            size = case.size
            progress.update(done, f"{label(case.name, case.options)}  m={size.m} {_short(size.dims)} n={size.n}")
            yield case


def _report(rows: Sequence[Row], json_file: Path | None, plot_file: Path | None, machine: dict[str, Any]) -> None:
    if not rows:
        return
    _print(rows)
    if restless := sum(row.spread > RESTLESS for row in rows):
        print(
            f"warning: in {restless} of {len(rows)} rows the quartiles of the times differ by more than "
            f"{RESTLESS - 1:.0%}, because of other work on the machine; --threads 1 --processor-time excludes that",
            file=sys.stderr,
        )
    if json_file is not None:
        head = json.dumps({"schema_version": SCHEMA_VERSION, "machine": machine})
        lines = ",\n".join(json.dumps(row.to_dict()) for row in rows)  # One line per row.
        json_file.write_text(f'{head[:-1]}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    if plot_file is not None:
        from fusionkit.bench.plot import draw  # Needs the extra `run`.

        if not draw(rows, plot_file):  # After an interruption.
            print(f"{plot_file} is not drawn: only one number of rows was measured", file=sys.stderr)


def _print(rows: Sequence[Row]) -> None:
    shown = {name: text for name, text in RATIOS.items() if any(row.ratios[name] is not None for row in rows)}
    columns = ("name", "m", "dims", "n", "dtype", "mode", "ms", *shown.values(), "way", "extra MB", "error")
    cells = [
        (
            label(row.name, row.options),
            row.m,
            _short(row.dims),
            row.n,
            row.dtype + (" > 0" if row.positive else ""),
            row.mode,
            f"{row.milliseconds:.3f}",
            *(None if (ratio := row.ratios[name]) is None else f"{ratio:.2f}" for name in shown),
            None if row.skips_materialization is None else "own" if row.skips_materialization else "W",
            f"{row.extra_bytes / 1e6:.3g}",
            None if row.error is None else f"{row.error:.1e}",
        )
        for row in rows
    ]
    print_table(columns, cells, whole=("name",))


def _short(dims: Sequence[int]) -> str:
    same = len(dims) > 1 and len(set(dims)) == 1
    return f"{len(dims)}x{dims[0]}" if same else ",".join(map(str, dims))


def processor_name() -> str:
    """Return the name of the processor as the system gives it."""
    name = platform.processor() or platform.machine()
    if sys.platform != "linux":
        return name
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), name)


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "cores": os.cpu_count(),
        "device": str(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
