"""Rows per second of an epoch on views that are streamed from a cold disk, and on the same rows in memory.

``python docs/bench_streaming.py [GIGABYTES [PAIRS [OPTION=VALUE ...]]]`` writes two views of 512 columns of float32 to
a temporary folder, then trains an epoch of the default run in both ways, in turn.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from fusionkit.config.composition import compose
from fusionkit.config.options import validate
from fusionkit.experiment import run
from fusionkit.experiment.parts import Batches, Part
from fusionkit.experiment.stream import StreamedPart, block_rows, buffer_blocks, members, read_blocks
from fusionkit.experiment.training import Training, train

WIDTH, CHUNK = 512, 10_000


def write(folder: Path, rows: int) -> None:
    """Write ``label.npy`` and two views of four overlapping classes."""
    random = np.random.default_rng(0)
    label = random.integers(0, 4, rows)
    np.save(folder / "label.npy", label)
    for name in ("first", "second"):
        centres = random.standard_normal((4, WIDTH), dtype=np.float32) / 10
        with (folder / f"{name}.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, WIDTH)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, rows, CHUNK):
                some = label[start : start + CHUNK]
                file.write((centres[some] + random.standard_normal((len(some), WIDTH), dtype=np.float32)).tobytes())


def drop_pages(folder: Path) -> None:
    """Let the system forget the content of the files."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def in_memory(part: StreamedPart) -> Part:
    """Return the same rows in memory."""
    views: list[list[torch.Tensor]] = [[] for _ in part.views]
    for start, block in read_blocks(part.views, part.block_rows, part.member):
        own = part.member[start : start + len(block[0])]
        for found, view in zip(views, part.scaler([one[own] for one in block]), strict=True):
            found.append(view)
    rest = part.rest.rows(torch.from_numpy(np.flatnonzero(part.member)))
    return Part([torch.cat(found) for found in views], rest.target)


def bench(folder: Path, pairs: int, options: Sequence[str]) -> list[float]:
    """Print the rows per second of each pair of epochs; return their ratios."""
    tree = compose(["data=folder", f"data.path={folder}", "data.memory_gb=0", "train.epochs=1", *options])
    config = validate(tree)
    data, parts = run.read(config)
    rows = parts.training
    fitted = data.fitted(rows)
    model = run.build_model(config, fitted)
    model.scaler.take(fitted.moments or [])
    rest = Part([], torch.from_numpy(data.target))
    views: list[Any] = list(data.views.values())
    member = members(data.rows, rows)
    streamed = StreamedPart(views, model.scaler, rest, member, block_rows(views), buffer_blocks(views))
    ways: dict[str, Batches] = {"streamed": streamed, "in memory": in_memory(streamed)}
    ratios = []
    for pair in range(pairs):
        speed = {}
        for name in sorted(ways, reverse=pair % 2 == 0):
            drop_pages(folder)
            training = Training(model.task, ways[name], data.target[rows], None, config.train, pair)
            begun = perf_counter()
            train(model.network, training, "cpu")
            speed[name] = len(rows) / (perf_counter() - begun)
        ratios.append(speed["streamed"] / speed["in memory"])
        shown = ", ".join(f"{name} {value:.0f} rows/s" for name, value in speed.items())
        print(f"{shown}: {ratios[-1]:.2f}", flush=True)
    return ratios


def main(gigabytes: str = "2", pairs: str = "3", *options: str) -> None:
    """Write the files, and print the median ratio."""
    with tempfile.TemporaryDirectory(prefix="fusionkit-bench-") as folder:
        rows = int(float(gigabytes) * 1e9 / (8 * WIDTH))
        write(Path(folder), rows)
        ratios = bench(Path(folder), int(pairs), options)
    print(f"streamed / in memory, median of {len(ratios)}: {median(ratios):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
