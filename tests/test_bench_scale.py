"""The bench of several processes and sweeps at a small size: what it writes, not how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "bench_scale.py"


def start(threads: str, *arguments: str) -> Any:
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.exhaustive
def test_it_writes_what_it_measured(tmp_path: Path) -> None:
    file = tmp_path / "scale.json"
    options = ["train.batch_size=32", "train.epochs=2"]
    found = start("1", str(file), "--pairs", "1", "--rows", "64", "--jobs", "1,2", *options)
    assert found.returncode == 0, found.stderr
    content = json.loads(file.read_text())
    assert [one["rows"] for one in content["steps"]] == [128, 1024, 8192]
    assert all(one["ratio"] == one["two"] / one["one"] > 0 for one in content["steps"])
    assert all(one["bare"] > 0 for one in content["steps"])
    assert [one["numbers"] for one in content["sums"]] == [1, 2**17, 2**24]
    assert all(one["seconds"] > 0 for one in content["sums"])
    assert [one["jobs"] for one in content["sweeps"]] == [1, 2]
    assert all(one["seconds"] > 0 and one["megabytes"] > 100 for one in content["sweeps"])
    assert len(found.stdout.splitlines()) == 3 + 3 + 2


def test_it_wants_processes_of_one_thread() -> None:
    found = start("2", "scale.json")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "OMP_NUM_THREADS should be 1, for processes of one thread each.\n"
