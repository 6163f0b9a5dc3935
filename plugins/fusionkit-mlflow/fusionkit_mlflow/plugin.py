"""The hooks of this package.  fusionkit imports this module to list operators, so it does not import MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fusionkit


@fusionkit.hookimpl
def fusionkit_run_finished(result: dict[str, Any], run_dir: Path | None) -> None:
    """Log a finished run."""
    from fusionkit_mlflow.tracker import log

    log(result, run_dir)
