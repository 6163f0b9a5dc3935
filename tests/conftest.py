"""A fixed seed for every test, and a place to install fake plugins."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionkit.registry import lookup
from tests.fake_distributions import Site

# Threads only wait for one another on tensors as small as here; child processes inherit the variable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


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
