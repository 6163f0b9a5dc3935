"""The option ``--exhaustive``, a fixed seed for every test, and a place to install fake plugins."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from fusionkit.contract import workers
from fusionkit.contract.needs import NEEDS
from fusionkit.registry import lookup
from tests.fake_distributions import Site

# Threads only wait for one another on tensors as small as here; child processes inherit the variable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exhaustive", action="store_true", help="run also the tests that are marked as exhaustive")


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("quick", max_examples=8)
    settings.register_profile("exhaustive", max_examples=60)
    settings.load_profile("exhaustive" if config.getoption("exhaustive") else "quick")
    config.addinivalue_line("markers", "exhaustive: runs with --exhaustive, or when its id is given; see CONTRIBUTING")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the exhaustive tests but for those whose ids are given."""
    if config.getoption("exhaustive"):
        return
    named = tuple(argument.partition("tests/")[2] for argument in config.args if "::" in argument)
    left_out = [
        item
        for item in items
        if item.get_closest_marker("exhaustive")
        and not (named and item.nodeid.partition("tests/")[2].startswith(named))
    ]
    config.stash[LEFT_OUT] = len(left_out)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def pytest_collection_finish() -> None:
    """Let garbage collections pass over what is imported by now, which is most of what there will be."""
    gc.collect()
    gc.freeze()


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    left_out = config.stash.get(LEFT_OUT, 0)
    return f"{left_out} exhaustive tests are left out; pytest --exhaustive runs them too." if left_out else ""


@pytest.fixture(autouse=True, scope="session")
def _one_fresh_interpreter() -> Iterator[None]:
    """Keep the fresh interpreter of the kit from one run to the next: its imports take a second of processor time."""
    close, process = workers.close, os.getpid()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "close", lambda: None if os.getpid() == process else close())
        yield
    close()


@pytest.fixture(autouse=True, scope="session")
def _inductor_if_exhaustive(pytestconfig: pytest.Config) -> Iterator[None]:
    """Let the kit compile with aot_eager only in the quick suite: inductor takes ten seconds for its first graph."""
    with pytest.MonkeyPatch.context() as patch:
        if not pytestconfig.getoption("exhaustive"):
            patch.setitem(NEEDS, "compiler", lambda: "needs --exhaustive")
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a folder on sys.path for fake distributions; registry and modules are as before afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    for variable in ("FUSIONKIT_PLUGINS", "FUSIONKIT_STRICT", "FUSIONKIT_CHECK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(lookup, "_published", None)
    monkeypatch.setattr(lookup, "_warned", set())
    yield Site(folder)
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty directory; what a run changes in logging and Hydra is as before afterwards."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level, handlers, config = root.level, list(root.handlers), HydraConfig.instance().cfg
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    HydraConfig.instance().cfg = config
    GlobalHydra.instance().clear()


@pytest.fixture
def fresh_workers() -> Iterator[None]:
    """End joblib's workers after the test: they would serve the next one from this one's directory."""
    yield
    if "joblib" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, which a process in the background may have inherited as ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
