"""Rows per second of a training in two processes and in one, of one thread each, by the number of rows in a step.

``OMP_NUM_THREADS=1 python docs/bench_processes.py [PAIRS [ROWS [OPTION=VALUE ...]]]`` trains a dense concatenation of
two views of 1024 columns, D = 2048 and n = 64, in both ways, in turn, without dropout unless train.input_dropout is
given; the first epoch is not counted.  It needs two free cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

import fusionkit
from fusionkit.config.composition import compose
from fusionkit.config.options import ModelOptions, TrainOptions, validate
from fusionkit.experiment.model import Network
from fusionkit.experiment.parts import Part
from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.training import Training, train

WIDTHS, N, CLASSES = [1024, 1024], 64, 10
STEPS = (128, 1024, 8192)


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


def bench(rows: int, pairs: int, given: Sequence[str]) -> dict[int, float]:
    """Print the rows per second of each pair; return the median ratio by the number of rows in a step."""
    torch.manual_seed(0)
    views = [torch.randn(rows, width) for width in WIDTHS]
    part, found = Part(views, torch.randint(CLASSES, (rows,))), {}
    with tempfile.TemporaryDirectory(prefix="fusionkit-bench-") as folder:
        for step in STEPS:
            ratios = []
            for pair in range(pairs):
                both = {}
                for count in (1, 2) if pair % 2 else (2, 1):
                    keys = {"batch_size": step, "devices": count, "epochs": 4, "input_dropout": 0.0}
                    changes = [*(f"train.{key}={value}" for key, value in keys.items()), *given]
                    both[count] = speed(part, validate(compose(changes)).train, Path(folder))
                ratios.append(both[2] / both[1])
                print(f"{step} rows a step: {both[1]:.0f} rows/s, in two {both[2]:.0f}: {ratios[-1]:.2f}", flush=True)
            found[step] = median(ratios)
    return found


def main(pairs: str = "5", rows: str = "32768", *given: str) -> None:
    """Print the median ratios."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("OMP_NUM_THREADS should be 1, for processes of one thread each.")
    for step, found in bench(int(rows), int(pairs), given).items():
        print(f"{step} rows a step: two processes / one, median of {pairs}: {found:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
