"""Remakes the tables and the pictures of ``scale.md`` from ``scale.json``, which ``bench_scale.py`` writes.

The projection is ``T(P) = a + b m / P + c + 2 (P - 1) (L + 4 G / (P B))`` seconds for a step of m rows in P > 1
processes: the work of a process, and a ring all_reduce of G gradients.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

PAGE = Path(__file__).with_name("scale.md")
IMAGES = PAGE.parent / "images"
BEGIN, END = "<!-- tables: made by docs/scale_tables.py -->\n", "<!-- end of tables -->\n"

#: D of the network that was measured, and its parameters.
WIDTH, PARAMETERS = 2048, 2048 * 64 + 64 + 64 * 10 + 10
PROCESSES = (1, 2, 4, 8, 16, 32, 64)
COLORS = ("#2b6cb0", "#c05621", "#2f855a")

TEXT = r"""### Measured: two processes

$machine. One thread per process, gloo, D = 2048, n = 64.

$steps

The ratios are medians of five pairs, measured in turn. "Bare DDP" is the same ratio of a loop around torch's
`DistributedDataParallel`: with few rows in a step, two processes on one machine are slower than one.

![Rows per second of several processes relative to one](images/scale_processes.png)

### Measured: sweeps

The default run with `train.epochs=5`, one job after the other, in one thread; the processor time includes the start
of the command.

$sweeps

![Processor time per job and memory of the command](images/scale_sweeps.png)

### Projected, not measured

A step of m rows in P processes takes

$$$$T(P) = a + \frac{b\,m\,D}{P} + c + 2\,(P - 1)\left(L + \frac{4\,G}{P\,B}\right),
\qquad T(1) = a + b\,m\,D,$$$$

first the work of a process, and last a ring all_reduce of G gradients, about n D. Fitted to the measurements above:
a = $a ms for a step, b = $b ns for a row and a column, c = $c ms for a step in several processes;
L = $L µs for a message and B = $B GB/s between two processes of this machine. One process more costs more than it
brings beyond $$P = \sqrt{(b\,m\,D - 8\,G / B) / (2\,L)}$$. Between machines with L = $other_L µs and
B = $other_B GB/s, which are assumed, the table has the rows per second relative to one process:

$projected

The processes are cores of the measured kind. A GPU has a smaller b, so a network has to be faster, or a step larger,
for the same ratio. A sweep of N jobs in K processes takes N / K times the time of a job: 10,000 of those above take
$hours hours on one core. The memory of the command grows by $job KiB per job, so by $many MiB for 10,000.
"""


@dataclass(frozen=True)
class Network:
    """What connects the processes: seconds of a message, and bytes per second."""

    latency: float
    bandwidth: float


#: Of a usual network of machines: assumed, not measured.
ETHERNET = Network(50e-6, 2.5e9)


@dataclass(frozen=True)
class Model:
    """The constants of the projection, in seconds: a step, a row, and what several processes add to a step."""

    step: float
    row: float
    added: float
    network: Network

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Model:
        """Fit the constants to what was measured, with equal relative errors."""
        rows, one, two = (np.array([step[key] for step in content["steps"]]) for key in ("rows", "one", "two"))
        times, both = rows / one, rows / two
        (step, row), *_ = np.linalg.lstsq(np.stack([1 / times, rows / times], 1), np.ones(len(rows)), rcond=None)
        small, _, large = content["sums"]
        bandwidth = 4 * large["numbers"] / (large["seconds"] - small["seconds"])
        model = cls(max(0.0, float(step)), float(row), 0.0, Network(small["seconds"] / 2, bandwidth))
        left = [seconds - model.seconds(2, m) for seconds, m in zip(both, rows, strict=True)]
        return cls(model.step, model.row, max(0.0, float(np.median(left))), model.network)

    def seconds(self, processes: int, rows: int, width: int = WIDTH, network: Network | None = None) -> float:
        """Return the seconds of a step of so many rows, for a dense W with D = ``width``."""
        work = self.step + self.row * rows * width / WIDTH / processes
        if processes == 1:
            return work
        net, size = network or self.network, 4 * PARAMETERS * width / WIDTH
        return work + self.added + 2 * (processes - 1) * (net.latency + size / (processes * net.bandwidth))

    def most(self, rows: int, width: int = WIDTH, network: Network | None = None) -> int:
        """Return the number of processes from which one more costs more than it brings."""
        net, size = network or self.network, 4 * PARAMETERS * width / WIDTH
        gain = self.row * rows * width / WIDTH - 2 * size / net.bandwidth
        best = max(1, round(sqrt(max(0.0, gain) / (2 * net.latency))))
        return best if self.seconds(best, rows, width, network) < self.seconds(1, rows, width, network) else 1


def tables(content: Mapping[str, Any]) -> str:
    """Return what stands between the marks of the page."""
    machine, model = content["machine"], Model.of(content)
    net, sweeps = model.network, content["sweeps"]
    jobs, megabytes = (sweeps[-1][key] - sweeps[0][key] for key in ("jobs", "megabytes"))
    per_job = max(0.0, megabytes / max(1, jobs))
    constants = {
        "machine": f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, {content['date']}",
        "steps": _steps(content["steps"], model),
        "sweeps": _table(
            ["jobs", "seconds of processor time per job", "memory of the command, MiB"],
            [[one["jobs"], f"{one['seconds']:.2f}", f"{one['megabytes']:.0f}"] for one in sweeps],
        ),
        "projected": _projected(model),
        "a": f"{1e3 * model.step:.2f}",
        "b": f"{1e9 * model.row / WIDTH:.3g}",
        "c": f"{1e3 * model.added:.2f}",
        "L": f"{1e6 * net.latency:.0f}",
        "B": f"{net.bandwidth / 1e9:.2g}",
        "other_L": f"{1e6 * ETHERNET.latency:.0f}",
        "other_B": f"{ETHERNET.bandwidth / 1e9:g}",
        "job": f"{1024 * per_job:.0f}",
        "many": f"{10000 * per_job:.0f}",
        "hours": f"{10000 * sweeps[-1]['seconds'] / 3600:.1f}",
    }
    return Template(TEXT).substitute(constants)


def _steps(steps: Sequence[Mapping[str, float]], model: Model) -> str:
    return _table(
        ["rows in a step", "rows/s, one process", "two", "two / one", "bare DDP", "by the formula"],
        [
            [
                step["rows"],
                f"{step['one']:,.0f}",
                f"{step['two']:,.0f}",
                f"{step['ratio']:.2f}",
                f"{step['bare']:.2f}",
                f"{model.seconds(1, int(step['rows'])) / model.seconds(2, int(step['rows'])):.2f}",
            ]
            for step in steps
        ],
    )


def _projected(model: Model) -> str:
    rows = []
    for width, m in ((2048, 1024), (2048, 8192), (2048, 65536), (65536, 8192), (65536, 65536)):
        ratios = (f"{_speed_up(model, count, m, width):.1f}" for count in PROCESSES[1:])
        rows.append([f"{width:,}", f"{m:,}", *ratios, model.most(m, width, ETHERNET)])
    return _table(["D", "rows in a step", *(f"P = {count}" for count in PROCESSES[1:]), "best P"], rows)


def updated(page: str, content: Mapping[str, Any]) -> str:
    """Return the text of the page with the tables made anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page should contain {BEGIN.strip()} and {END.strip()}; found one of them missing.")
    return f"{before}{begin}\n{tables(content)}\n{end}{after}"


def draw(content: Mapping[str, Any], folder: Path) -> None:
    """Draw the pictures of the page."""
    model, steps, sweeps = Model.of(content), content["steps"], content["sweeps"]
    figure = Figure(figsize=(5.6, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for step, color in zip(steps, COLORS, strict=False):
        rows = step["rows"]
        curve = [_speed_up(model, count, rows) for count in PROCESSES]
        axes.plot(PROCESSES, curve, color=color, linestyle="--", linewidth=1.2)
        axes.plot([1, 2], [1, step["ratio"]], color=color, marker="o", label=f"{rows:,} rows in a step")
    axes.axhline(1, color="#a0aec0", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(PROCESSES, [str(count) for count in PROCESSES])
    axes.set_xlabel("processes (dots: measured; dashes: projected, Ethernet)", fontsize=12)
    axes.set_ylabel("rows per second / one process", fontsize=12)
    axes.legend(fontsize=11, frameon=False)
    figure.savefig(folder / "scale_processes.png", format="png")
    figure = Figure(figsize=(5.6, 3.6), dpi=120, layout="constrained")
    for axes, key, label, color in zip(
        figure.subplots(1, 2), ("seconds", "megabytes"), ("s of processor time per job", "MiB of the command"), COLORS,
        strict=False,
    ):  # fmt: skip
        axes.plot([one["jobs"] for one in sweeps], [one[key] for one in sweeps], color=color, marker="o")
        axes.set_xscale("log")
        axes.set_ylim(0, 1.1 * max(one[key] for one in sweeps))
        axes.set_xlabel("jobs", fontsize=12)
        axes.set_title(label, fontsize=12, loc="left")
    figure.savefig(folder / "scale_sweeps.png", format="png")


def _speed_up(model: Model, processes: int, rows: int, width: int = WIDTH) -> float:
    """Return the rows per second relative to one process; between machines for another width than the measured."""
    return model.seconds(1, rows, width) / model.seconds(processes, rows, width, ETHERNET)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    found = json.loads(PAGE.with_suffix(".json").read_text(encoding="utf-8"))
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    draw(found, IMAGES)
