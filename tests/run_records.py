"""Runs of plain configs, and records of runs that were never made, for what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def run_job(cfg: dict[str, Any], run_dir: Path, **options: Any) -> dict[str, Any]:
    """Run a plain config."""
    from fusionkit.config.options import validate
    from fusionkit.experiment import run

    return run.run_job(validate(cfg), run_dir, **options)


def put(folder: Path, name: str, **changes: Any) -> Path:
    """Write the record of a completed run, with nothing but the keys that the design promises."""
    result = {
        "schema_version": 1,
        "status": "completed",
        "error": None,
        "fusion": "parameterized_concatenation",
        "fabrication": "dense",
        "dims": [4, 3],
        "data_dims": [4, 3],
        "n": 5,
        "l": 35,
        "parameters": 53,
        "seed": 0,
        "metrics": {"accuracy": 0.9},
        "seconds": 2.0,
        "config_hash": name,
        "provenance": {},
        **changes,
    }
    path = folder / name
    path.mkdir(parents=True)
    (path / "result.json").write_text(json.dumps(result))
    return path
