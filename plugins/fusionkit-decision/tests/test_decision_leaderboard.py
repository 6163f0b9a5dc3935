"""All operators are trained from their configs, in one sweep, and the leaderboard compares them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import fusionkit
import numpy as np
import pytest
from fusionkit import Fusion, cli

from fusionkit_decision.plugin import OPERATORS

WIDTHS = (4, 3, 5)


def test_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    label = np.arange(60) % 3
    means = [generator.normal(size=(3, width))[label] for width in WIDTHS]
    arrays: dict[str, Any] = {
        f"view_{i}": (mean + generator.normal(size=mean.shape)).astype("float32") for i, mean in enumerate(means)
    }
    np.savez("views.npz", label=label, **arrays)
    train = ["model.encoder=linear", "model.encoder_width=4", "train.epochs=1", "train.batch_size=32"]
    assert cli.main(["run", "-m", "data=npz", "data.path=views.npz", *train, f"fusion={','.join(OPERATORS)}"]) == 0
    assert ": 7 completed;" in capsys.readouterr().out
    assert cli.main(["leaderboard", "multirun", "--json"]) == 0
    rows = {row["fusion"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows) == set(OPERATORS)
    for name, row in rows.items():
        result = json.loads((Path(row["paths"][0]) / "result.json").read_text(encoding="utf-8"))
        options = {key: value for key, value in result["config"]["fusion"].items() if key in own_options(name)}
        assert row["l"] == fusionkit.create(name, dims=[4, 4, 4], **options).calculate_l()


def own_options(name: str) -> set[str]:
    """Return the options that this operator has beside those of every fusion."""
    own, common = (inspect.signature(cls).parameters for cls in (fusionkit.registry.load("fusion", name), Fusion))
    return set(own) - set(common)
