"""The bench of streaming at a small size: what it prints, not how fast it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "bench_streaming.py"


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the pages of a file cannot be dropped")
def test_it_prints_the_ratio_of_each_pair_and_their_median(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "0.001", "2", "train.batch_size=32"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    *pairs, last = found.stdout.splitlines()
    assert len(pairs) == 2
    for line in pairs:
        assert re.fullmatch(r"(streamed|in memory) \d+ rows/s, (streamed|in memory) \d+ rows/s: \d+\.\d\d", line)
    assert re.fullmatch(r"streamed / in memory, median of 2: \d+\.\d\d", last)
    assert not any(tmp_path.iterdir())
