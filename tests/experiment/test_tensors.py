"""Rows of a data set as a network takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionkit.config.options import validate
from fusionkit.experiment import run, tensors
from fusionkit.experiment.tensors import affordable, standardized
from tests.experiment.test_run_streamed import on_disk

Config = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("most", "memory", "rows"), [(5, 1e6, 5), (100, 1e6, 12), (100, 28 * 9, 9), (100, 1, 1)])
def test_rows_of_stored_views_to_read_at_once(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, memory: float, rows: int
) -> None:
    monkeypatch.setattr(tensors, "_SHARE", 0.0)
    monkeypatch.setattr(tensors, "BUFFER", memory)
    test, drawn = np.arange(20, 32), []
    for seed in (0, 0, 1):
        cfg = config(seed=seed)
        data, _ = on_disk(cfg, tmp_path)
        drawn.append(affordable(test, most, data, validate(cfg)).tolist())
        assert len(drawn[-1]) == rows
        assert set(drawn[-1]) <= set(test.tolist())
        assert affordable(test, most, run.read(validate(cfg))[0], validate(cfg)) is test
    assert drawn[0] == drawn[1]
    assert (drawn[0] == drawn[2]) == (rows == 12)


@pytest.mark.parametrize("values", [1, 20, 10**6])
def test_standardized_in_pieces(config: Config, monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    monkeypatch.setattr(tensors, "_PIECE", values)
    cfg = validate(config())
    data, parts = run.read(cfg)
    model = run.build_model(cfg, data)
    model.scaler.fit(list(data.views.values()))
    rows = parts.training[::-1].copy()
    part = standardized(model, data, rows)
    wanted = model.scaler([view[rows] for view in data.views.values()])
    assert all(torch.equal(view, other) for view, other in zip(part.views, wanted, strict=True) if other is not None)
    assert part.target.tolist() == data.target[rows].tolist()
