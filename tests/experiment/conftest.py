"""A small multi-view data set and a config that trains on it within a fraction of a second."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Arrays = dict[str, Any]


def _arrays() -> Arrays:
    """Return 60 rows of three separable classes in two views of widths 4 and 3."""
    generator = np.random.default_rng(0)
    label = np.arange(60) % 3
    centres = 4 * np.eye(3)[label]
    return {
        "a": np.hstack([centres, np.ones((60, 1))]) + 0.1 * generator.standard_normal((60, 4)),
        "b": (100 * centres + generator.integers(0, 9, (60, 3))).astype(np.int64),
        "label": label,
    }


def _config(path: Path) -> dict[str, Any]:
    return {
        "n": 5,
        "dims": [4, 3],
        "device": "cpu",
        "seed": 0,
        "data": {"name": "npz", "path": str(path), "dims": [4, 3], "test_size": 0.2},
        "fabrication": {"name": "dense"},
        "fusion": {
            "_target_": "fusionkit.create",
            "_recursive_": False,
            "_convert_": "all",
            "name": "parameterized_concatenation",
            "n": 5,
            "dims": [4, 3],
            "device": "cpu",
            "parameter_fabrication": {"name": "dense"},
        },
        "model": {"head": "linear", "encoder": "none", "encoder_width": None},
        "train": {"epochs": 5, "batch_size": 16, "lr": 0.05, "label_smoothing": 0.1, "input_dropout": 0.2},
    }


@pytest.fixture
def arrays() -> Arrays:
    """Return 60 rows of three separable classes in two views of widths 4 and 3."""
    return _arrays()


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fusionkit.config.options import validate
    from fusionkit.experiment.run import run_job

    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "views.npz", **_arrays())
    run_job(validate(_config(folder / "views.npz")), folder / "run", quiet=True)
    return folder / "run"


@pytest.fixture
def run_dir(_finished: Path, tmp_path: Path) -> Path:
    """Return the directory of a completed run, to be damaged at will."""
    return Path(shutil.copytree(_finished, tmp_path / "run"))


@pytest.fixture
def npz(tmp_path: Path, arrays: Arrays) -> Callable[..., Path]:
    """Return a function that writes the arrays, some of them replaced (None: left out), and returns the path."""

    def write(**replaced: Any) -> Path:
        path = tmp_path / "views.npz"
        chosen = {key: value for key, value in {**arrays, **replaced}.items() if value is not None}
        np.savez(path, **chosen)
        return path

    return write


@pytest.fixture
def config(npz: Callable[..., Path]) -> Callable[..., dict[str, Any]]:
    """Return a function that returns a plain config for the small data; keyword arguments ``group__key`` change it."""
    base = _config(npz())

    def make(**changes: Any) -> dict[str, Any]:
        cfg = copy.deepcopy(base)
        for key, value in changes.items():
            *groups, last = key.split("__")
            node = cfg
            for group in groups:
                node = node[group]
            node[last] = value
        return cfg

    return make
