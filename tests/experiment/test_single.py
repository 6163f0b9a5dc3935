from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn

import fusionkit.experiment.run
from fusionkit import cli
from fusionkit.config import hydra_bridge


@pytest.mark.parametrize(
    ("record", "value"),
    [
        ({"metrics": {"accuracy": 0.5}}, 0.5),
        ({"metric": "rmse", "metrics": {"rmse": 2.5}, "validation": None}, -2.5),
        ({"metric": "rmse", "metrics": {"rmse": 2.5}, "validation": {"rmse": 4.0}}, -4.0),
        ({"metric": "r2", "metrics": {}, "validation": {"r2": 0.25}}, 0.25),
        ({"metric": "roc_auc", "metrics": {"roc_auc": None}}, None),
        ({"metrics": {}, "validation": None}, None),
    ],
)
def test_a_run_returns_its_metric_so_that_more_is_better(
    record: dict[str, Any], value: float | None, npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[JobReturn] = []
    app = vars(hydra_bridge)["Hydra"]
    run = app.run
    monkeypatch.setattr(app, "run", lambda *args, **options: returned.append(run(*args, **options)))
    monkeypatch.setattr(fusionkit.experiment.run, "run_job", lambda *args, **options: {"status": "completed", **record})
    assert cli.main(["run", "data=npz", f"data.path={npz()}", "n=4", f"hydra.run.dir={npz().parent / 'run'}"]) == 0
    assert [job.return_value for job in returned] == [value]
