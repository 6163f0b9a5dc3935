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

from fusionkit_attention.bench import FIXED_N
from fusionkit_attention.plugin import OPERATORS

WIDTHS = (4, 3, 5)
#: The other presets are operators under another name.
NAMES = [*OPERATORS, "mag"]


def test_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    label = np.arange(60) % 3
    means = [generator.normal(size=(3, width))[label] for width in WIDTHS]
    arrays: dict[str, Any] = {
        f"view_{i}": (mean + generator.normal(size=mean.shape)).astype("float32") for i, mean in enumerate(means)
    }
    np.savez("views.npz", label=label, **arrays)
    train = ["model.encoder=linear", "model.encoder_width=4", "n=4", "train.epochs=1", "train.batch_size=32"]
    train.append("train.view_dropout=0.3")
    assert cli.main(["run", "-m", "data=npz", "data.path=views.npz", *train, f"fusion={','.join(NAMES)}"]) == 0
    assert f": {len(NAMES)} completed;" in capsys.readouterr().out
    assert cli.main(["leaderboard", "multirun", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    results = [json.loads((Path(row["paths"][0]) / "result.json").read_text(encoding="utf-8")) for row in rows]
    assert {result["config"]["fusion"]["name"] for result in results} == set(OPERATORS)
    for row, result in zip(rows, results, strict=True):
        name = result["config"]["fusion"]["name"]
        options = {key: value for key, value in result["config"]["fusion"].items() if key in own_options(name)}
        width: dict[str, Any] = {} if name in FIXED_N else {"n": 4}
        assert row["l"] == fusionkit.create(name, dims=[4, 4, 4], **width, **options).calculate_l()


def own_options(name: str) -> set[str]:
    """Return the options that this operator has beside those of every fusion."""
    own, common = (inspect.signature(cls).parameters for cls in (fusionkit.registry.load("fusion", name), Fusion))
    return set(own) - set(common)
