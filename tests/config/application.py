"""``fusionkit run`` whose errors are raised instead of printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusionkit.cli.run import run

__all__ = ["main"]


def main(argv: Sequence[str]) -> Any:
    """Run ``fusionkit run ARGV`` and return its status."""
    return run.main(args=list(argv), prog_name="fusionkit run", standalone_mode=False)
