"""Operators that draw numbers in training, or have a loss, go on from a checkpoint with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fusionkit import cli
from fusionkit.experiment import training


@pytest.mark.parametrize("name", ["embracenet", "mixture_of_experts"])
def test_a_run_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    label = np.arange(60) % 3
    means = [generator.normal(size=(3, width))[label] for width in (4, 3)]
    arrays: dict[str, Any] = {f"view_{i}": mean + generator.normal(size=mean.shape) for i, mean in enumerate(means)}
    np.savez("views.npz", label=label, **arrays)
    options = ["data=npz", "data.path=views.npz", f"fusion={name}", "model.encoder=linear", "n=4"]
    options += ["train.epochs=4", "train.batch_size=16", "train.view_dropout=0.3", "train.checkpoint_every=1"]
    assert cli.main(["run", *options, "hydra.run.dir=whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(training._State, "save", stopping(training._State.save))
        assert cli.main(["run", *options, "hydra.run.dir=run"]) == 1
    capsys.readouterr()
    assert cli.main(["run", "--resume", "run"]) == 0
    assert "after epoch 2, in run" in capsys.readouterr().err
    records = [json.loads(Path(folder, "result.json").read_text()) for folder in ("whole", "run")]
    for record in records:
        record["seconds"] = None
    assert records[0] == records[1]
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def stopping(save: Any) -> Any:
    """Return a function that writes the checkpoint of an epoch, and stops the run in the third."""

    def stop(state: Any, epoch: int) -> None:
        if epoch == 3:
            raise RuntimeError("stopped")
        save(state, epoch)

    return stop
