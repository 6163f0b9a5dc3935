"""What the registry may cost.  Processor time is measured, so that other work on the machine does not count."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from fake_distributions import Site

import fusionkit
from fusionkit.fusions.summation import Summation


def processor_seconds(run: Callable[[], subprocess.CompletedProcess[str]]) -> float:
    """Return the least time in seconds, user and system, that a child process took in three runs."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):
        before = spent()
        done = run()
        assert done.returncode == 0, done.stderr
        times.append(spent() - before)
    return min(times)


def test_a_thousand_plugins_take_at_most_two_milliseconds_each(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for index in range(1000):
        source = f"import fusionkit\n@fusionkit.hookimpl\ndef fusionkit_fusions(): return {{'fk_{index}': 'a:B'}}\n"
        site.install(f"fk-{index}", source, requires=["fusionkit>=0.1", "torch"])
    lines = site.command("list").stdout.splitlines()
    assert sum(line.split()[1].startswith("fk_") for line in lines) == 1000
    assert processor_seconds(lambda: site.command("list")) <= 1000 * 0.002


def test_list_takes_at_most_a_quarter_of_importing_torch(tmp_path: Path) -> None:
    site = Site(tmp_path)
    torch = processor_seconds(lambda: site.python("-c", "import torch"))
    assert processor_seconds(lambda: site.command("list")) <= torch / 4


def test_create_takes_at_most_fifty_microseconds_more_than_the_class() -> None:
    def seconds(build: Callable[[], object]) -> float:
        start = perf_counter()
        build()
        return perf_counter() - start

    created, constructed = [], []
    for _ in range(2000):  # Interleaved, and the least of each: both meet the machine in the same state.
        created.append(seconds(lambda: fusionkit.create("summation", dims=[8, 8])))
        constructed.append(seconds(lambda: Summation(dims=[8, 8])))
    assert min(created) - min(constructed) <= 50e-6


def test_names_are_answered_from_memory() -> None:
    fusionkit.fusions()
    start = perf_counter()
    for _ in range(100):
        fusionkit.fusions()
    assert (perf_counter() - start) / 100 <= 1e-3


def test_importing_fusionkit_is_cheap(tmp_path: Path) -> None:
    site = Site(tmp_path)
    bare = processor_seconds(
        lambda: subprocess.run([sys.executable, "-c", ""], capture_output=True, text=True, check=False)
    )
    assert processor_seconds(lambda: site.python("-c", "import fusionkit")) <= bare + 0.05
