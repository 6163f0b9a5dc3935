"""Measures what several processes and long sweeps cost, for the page ``scale.md``.

``OMP_NUM_THREADS=1 python docs/bench_scale.py FILE [--pairs N] [--rows N] [--jobs N,N,...] [OPTION=VALUE ...]`` writes
a JSON file; ``scale_tables.py`` makes the tables and the pictures from it.  It needs Linux and two free cores.

- steps: rows per second of a training in two processes and in one, of one thread each, in turn.  It trains a dense
  concatenation of two views of 1024 columns, D = 2048 and n = 64, without dropout unless train.input_dropout is given;
  the first epoch is not counted.  "bare" is the ratio of a loop around torch's own DistributedDataParallel.
- sums: seconds of an all_reduce between the two processes, by the number of float32 numbers.
- sweeps: processor time of a sweep of the default run with train.epochs=5, one job after the other, and the memory of
  its process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import fusionkit
from fusionkit.cli.bench_run import processor_name
from fusionkit.config.composition import compose
from fusionkit.config.options import ModelOptions, TrainOptions, validate
from fusionkit.experiment.model import Network
from fusionkit.experiment.parts import Part
from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.training import Training, train

WIDTHS, N, CLASSES = [1024, 1024], 64, 10
STEPS, EPOCHS = (128, 1024, 8192), 4
#: Of the sums: one number; the gradients of the network above; 64 MiB.
NUMBERS = (1, 2**17, 2**24)


class Clock:
    """Writes the time at the end of each epoch to a file, from whichever process trains."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, fraction: float) -> None:
        """Write a line."""
        with self.path.open("a") as file:
            print(perf_counter(), file=file)

    def seconds(self) -> float:
        """Return the duration of the second epoch and those behind it."""
        times = [float(line) for line in self.path.read_text().split()]
        return times[-1] - times[0]


def speed(part: Part, options: TrainOptions, folder: Path) -> float:
    """Return the rows per second of a training."""
    torch.manual_seed(0)
    fusion = fusionkit.create("parameterized_concatenation", dims=WIDTHS, n=N)
    network = Network(fusion, WIDTHS, CLASSES, ModelOptions(), options.input_dropout)
    clock = Clock(Path(tempfile.mkstemp(dir=folder)[1]))
    target = part.target.numpy().copy()  # A tensor that is sent to another process moves to other memory.
    train(network, Training(Classification([*range(CLASSES)]), part, target, None, options, 0, report=clock), "cpu")
    return len(part) * (options.epochs - 1) / clock.seconds()


def steps(rows: int, pairs: int, given: Sequence[str], folder: Path) -> Iterator[dict[str, float]]:
    """Yield the medians of the pairs, by the number of rows in a step."""
    torch.manual_seed(0)
    views = [torch.randn(rows, width) for width in WIDTHS]
    part = Part(views, torch.randint(CLASSES, (rows,)))
    for step in STEPS:
        found: dict[int, list[float]] = {1: [], 2: []}
        bare: dict[int, list[float]] = {1: [], 2: []}
        for pair in range(pairs):
            for count in (1, 2) if pair % 2 else (2, 1):
                keys = {"batch_size": step, "devices": count, "epochs": EPOCHS, "input_dropout": 0.0}
                changes = [*(f"train.{key}={value}" for key, value in keys.items()), *given]
                found[count].append(speed(part, validate(compose(changes)).train, folder))
                bare[count].append(bare_speed(rows, step, count, folder))
        ratio, other = (
            median(two / one for one, two in zip(times[1], times[2], strict=True)) for times in (found, bare)
        )
        yield {"rows": step, "one": median(found[1]), "two": median(found[2]), "ratio": ratio, "bare": other}
        text = f"{step} rows a step: two processes / one, median of {pairs}: {ratio:.2f}; bare DDP {other:.2f}"
        print(text, flush=True)


def bare_speed(rows: int, step: int, count: int, folder: Path) -> float:
    """Return the rows per second of a loop around torch's own DistributedDataParallel."""
    file = folder / "bare.json"
    spawn(_bare, (count, rows, step, folder, file), count)
    (folder / "store").unlink(missing_ok=True)
    return (EPOCHS - 1) * rows / float(json.loads(file.read_text()))


def _bare(rank: int, count: int, rows: int, step: int, folder: Path, file: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    torch.manual_seed(0)
    x, target = torch.randn(rows, sum(WIDTHS)), torch.randint(CLASSES, (rows,))
    layers = (nn.Linear(sum(WIDTHS), N), nn.GELU(), nn.Linear(N, CLASSES))
    model: nn.Module = nn.Sequential(*layers)
    model = DistributedDataParallel(model) if count > 1 else model
    optimizer, begun = torch.optim.AdamW(model.parameters(), fused=True), 0.0
    for epoch in range(EPOCHS):
        if epoch == 1:
            begun = perf_counter()
        for batch in torch.randperm(rows).split(step):
            own = batch[rank::count]
            optimizer.zero_grad()
            cross_entropy(model(x[own]), target[own]).backward()
            optimizer.step()
    if rank == 0:
        file.write_text(json.dumps(perf_counter() - begun))
    distributed.barrier()
    distributed.destroy_process_group()


def sums(folder: Path) -> list[dict[str, float]]:
    """Return the seconds of an all_reduce between two processes, by the number of float32 numbers."""
    spawn(_sums, (folder,), 2)
    found: list[dict[str, float]] = json.loads((folder / "sums.json").read_text())
    for one in found:
        print(f"all_reduce of {one['numbers']} numbers: {one['seconds']:.2e} s")
    return found


def _sums(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = []
    for count in NUMBERS:
        numbers, times = torch.ones(count), []
        for _ in range(25):
            distributed.barrier()
            begun = perf_counter()
            distributed.all_reduce(numbers.fill_(1.0))
            times.append(perf_counter() - begun)
        found.append({"numbers": count, "seconds": median(times[5:])})
    if rank == 0:
        (folder / "sums.json").write_text(json.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()


def sweeps(counts: Sequence[int], given: Sequence[str], folder: Path) -> Iterator[dict[str, float]]:
    """Yield processor time per job and the memory of the process, by the number of jobs."""
    for jobs in counts:
        options = [f"seed=range({jobs})", "train.epochs=5", *given, f"hydra.sweep.dir={folder}/{jobs}"]
        # The sweep reports its own peak: to a parent, ru_maxrss is at least the memory of the parent.
        command = [sys.executable, "-c", _SWEEP, "run", "-m", *options]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            sys.exit(found.stderr)
        seconds, megabytes = map(float, found.stdout.splitlines()[-1].split())
        seconds /= jobs
        print(f"sweep of {jobs}: {seconds:.2f} s of processor time per job, {megabytes:.0f} MiB", flush=True)
        yield {"jobs": jobs, "seconds": seconds, "megabytes": megabytes}


_SWEEP = """
import sys, time
from fusionkit import cli
status = cli.main(sys.argv[1:])
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
print(time.process_time(), peak)
sys.exit(status)
"""


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--pairs", type=int, default=5, help="of trainings in one and in two processes")
    parser.add_argument("--rows", type=int, default=32768, help="of an epoch")
    parser.add_argument("--jobs", default="10,100,1000", help="of the sweeps")
    parser.add_argument("given", nargs="*", metavar="OPTION=VALUE", help="of all trainings")
    args = parser.parse_intermixed_args(arguments)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("OMP_NUM_THREADS should be 1, for processes of one thread each.")
    content: dict[str, Any] = {
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "torch": torch.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    with tempfile.TemporaryDirectory(prefix="fusionkit-bench-") as name:
        folder = Path(name)
        content["steps"] = [*steps(args.rows, args.pairs, args.given, folder)]
        content["sums"] = sums(folder)
        content["sweeps"] = [*sweeps([int(jobs) for jobs in args.jobs.split(",")], args.given, folder)]
    args.file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
