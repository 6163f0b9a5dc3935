"""An empty directory for each test, and the command with or without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionkit import cli
from fusionkit.config import config_hash
from fusionkit.config.options import RunConfig


@pytest.fixture(autouse=True)
def _empty(empty_directory: None) -> None:
    pass


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call ``fusionkit run`` and return status, stdout and stderr."""

    def call(*argv: str) -> tuple[int, str, str]:
        status = cli.main(["run", *argv])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace training by a record, and return the configurations it was given."""
    from safetensors.torch import save_file

    import fusionkit.experiment.run
    from fusionkit._util.files import write_json
    from fusionkit.config import build
    from fusionkit.experiment import results

    seen: list[dict[str, Any]] = []

    def run_job(config: RunConfig, run_dir: Path, **options: Any) -> dict[str, Any]:
        cfg = config.tree
        build(cfg["fusion"], "fusion")
        seen.append(cfg)
        results.start(run_dir)
        save_file({}, run_dir / results.MODEL)
        found = results.record(cfg, status="completed", metrics={"accuracy": 0.5}, config_hash=config_hash(cfg))
        write_json(run_dir / results.RESULT, found)
        return found

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", run_job)
    return seen


@pytest.fixture
def views(tmp_path: Path, arrays: dict[str, Any]) -> str:
    np.savez(tmp_path / "views.npz", **arrays)
    return "views.npz"
