"""The bench of two processes at a small size: what it prints, not how fast it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "bench_processes.py"


@pytest.mark.exhaustive
def test_it_prints_the_ratio_of_each_pair_and_their_median() -> None:
    command = [sys.executable, str(SCRIPT), "1", "64", "train.batch_size=32", "train.epochs=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = found.stdout.splitlines()
    assert len(lines) == 6
    for step, line in zip((128, 1024, 8192), lines[:3], strict=True):
        assert re.fullmatch(rf"{step} rows a step: \d+ rows/s, in two \d+: \d+\.\d\d", line)
    for step, line in zip((128, 1024, 8192), lines[3:], strict=True):
        assert re.fullmatch(rf"{step} rows a step: two processes / one, median of 1: \d+\.\d\d", line)


def test_it_wants_processes_of_one_thread() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    found = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, env=environment)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "OMP_NUM_THREADS should be 1, for processes of one thread each.\n"
