"""What the registry may cost, in things that can be counted: modules, opened files, calls.

The times themselves depend on the machine: ``python -m tests.registry.test_speed`` measures and prints them.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import fusionkit
from fusionkit.fusions.summation import Summation
from tests.fake_distributions import Site

HEAVY = {"torch", "numpy", "hydra", "omegaconf", "rich", "yaml", "safetensors"}

COUNT = """\
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)
from fusionkit import cli
cli.main(["list"])
print(len(opened), *sys.modules, file=sys.stderr)
"""


def install(site: Site, indices: range) -> None:
    for index in indices:
        source = f"import fusionkit\n@fusionkit.hookimpl\ndef fusionkit_fusions(): return {{'fk_{index}': 'a:B'}}\n"
        site.install(f"fk-{index}", source, requires=["fusionkit>=0.1", "torch"])


def listing(site: Site) -> tuple[int, set[str]]:
    """Return how many files ``fusionkit list`` opens, and which modules it imports."""
    done = site.python("-c", COUNT, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    opened, *modules = done.stderr.split()
    return int(opened), set(modules)


def calls(run: Callable[[], object]) -> int:
    """Return how many calls, of Python and of C, there are in ``run()``."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def test_listing_opens_four_files_per_plugin(tmp_path: Path) -> None:
    site = Site(tmp_path)
    install(site, range(10))
    listing(site)  # Leaves the compiled modules behind.
    few = listing(site)[0]
    install(site, range(10, 30))
    listing(site)
    assert listing(site)[0] - few <= 4 * 20  # Entry points, metadata, the compiled module, and its source's cache.


def test_listing_imports_nothing_heavy(tmp_path: Path) -> None:
    modules = listing(Site(tmp_path))[1]
    assert "fusionkit.registry" in modules
    assert not HEAVY & modules


def test_create_makes_few_calls_more_than_the_class() -> None:
    def created() -> object:
        return fusionkit.create("summation", dims=[8, 8])

    def constructed() -> object:
        return Summation(dims=[8, 8])

    created(), constructed()
    assert calls(created) - calls(constructed) <= 30


def test_names_are_answered_from_memory() -> None:
    fusionkit.fusions()
    assert calls(fusionkit.fusions) <= 20 * len(fusionkit.fusions()) + 50


def processor_seconds(run: Callable[[], subprocess.CompletedProcess[str]]) -> float:
    """Return the median time in seconds, user and system, that a child process took in five runs."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(5):
        before = spent()
        done = run()
        assert done.returncode == 0, done.stderr
        times.append(spent() - before)
    return median(times)


def seconds(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def measure() -> None:
    """Print what the registry costs on this machine."""
    with TemporaryDirectory() as folder:
        site = Site(Path(folder))
        torch = processor_seconds(lambda: site.python("-c", "import torch"))
        none = processor_seconds(lambda: site.command("list"))
        install(site, range(1000))
        site.command("list")
        thousand = processor_seconds(lambda: site.command("list"))
    created, constructed = [], []
    for _ in range(2000):  # Interleaved: both meet the machine in the same state.
        created.append(seconds(lambda: fusionkit.create("summation", dims=[8, 8])))
        constructed.append(seconds(lambda: Summation(dims=[8, 8])))
    print(f"fusionkit list: {none:.3f} s, {none / torch:.2f} of import torch ({torch:.3f} s)")
    print(f"fusionkit list, 1000 plugins: {thousand:.3f} s, {thousand - none:.2f} ms per plugin")
    print(f"create(): {(median(created) - median(constructed)) * 1e6:.1f} us more than the class")


if __name__ == "__main__":
    measure()
