"""The pictures of a run that is over: those of the jobs of a sweep are drawn when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fusionkit.errors import FusionError
from fusionkit.experiment import run, run_picture
from fusionkit.experiment.load import load
from fusionkit.experiment.repeat import checked_config
from fusionkit.experiment.results import RESULT, pictures, shown
from fusionkit.experiment.state import exclusive
from fusionkit.experiment.trained import Trained
from fusionkit.experiment.training import History


@exclusive()
def draw_absent(result: dict[str, Any], run_dir: Path) -> None:
    """Draw the pictures of a completed run, unless all are in its directory.

    Args:
        result: its record, with every key of ``results.Result``.
        run_dir: its directory, with its model.

    Raises:
        FusionError, ConfigError, RegistryError: the model or the data of the run cannot be read, or the data have
            changed.
        OSError: the directory cannot be written to.
    """
    if all((run_dir / name).exists() for name in pictures(result)):
        return
    config = checked_config(result["config"], run_dir / RESULT)
    model = load(run_dir)
    data, parts = run.read(config)
    if data.digest != (digest := result["data"].get("digest")):
        what = f"The data should be those of {shown(run_dir)}, with the digest {str(digest)[:8]}, to draw its pictures"
        raise FusionError(f"{what}; found another content of {data.label}, {data.digest[:8]}.")
    fitted = data.fitted(run.weighted(run.last_rows(config, parts), data))
    history = History([], [], [], result["best_epoch"])
    trained = Trained(config, model, fitted, history)
    target, unseen = data.target[parts.test], run.unseen_rows(config, parts)
    predicted = trained.predicted(parts.test) if len(target) else np.empty((0, model.task.outputs))
    whole = trained.whole(unseen, result["metric"]) if result["views"] else None
    run_picture.draw_pictures(result, run_dir, (predicted, target), whole)
