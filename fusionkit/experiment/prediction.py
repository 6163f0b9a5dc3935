"""Predictions of a trained run on new data, and its metrics on labelled data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionkit.config.options import FileOptions, TableOptions, data_options
from fusionkit.experiment.data import OWN, read_source
from fusionkit.experiment.load import load
from fusionkit.experiment.missing import presence
from fusionkit.experiment.npz import read_views
from fusionkit.experiment.results import RESULT, read_result
from fusionkit.experiment.source import Array, Batch
from fusionkit.experiment.tasks.choice import known_target


class Predictor:
    """Predicts new data with a trained run.

    Args:
        run_dir: the directory of a completed run.
        path: the new data, a file, or a file per view if the run was trained on such.
        device: where to compute; None is the CPU.

    Attributes:
        rows: that have been predicted.
        absent: those of them without any view.
        unseen: column -> the number of their cells that the training part does not have.
        notes: lines for the user about labelled data.

    Raises:
        FusionError, RegistryError, ConfigError: as ``fusionkit.load``; a path that the run cannot read.
    """

    def __init__(self, run_dir: Path, path: Any, device: str | None = None) -> None:
        self.model = load(run_dir, device)
        node = read_result(run_dir / RESULT)["config"]["data"]
        # Data that ship with a package are arrays.
        form = {"name": "npz"} if node["name"] not in OWN else node
        self.options: FileOptions = data_options({**form, "path": path})  # type: ignore[assignment]
        self.unseen: Counter[str] = Counter()
        self.rows = self.absent = 0
        self.notes: list[str] = []

    @property
    def id(self) -> str | None:
        """The name of the ids; None if the rows are numbered."""
        return self.options.id if isinstance(self.options, TableOptions) else "id"

    def batches(self, rows: int) -> Iterator[tuple[Batch, Array]]:
        """Yield batches of at most ``rows`` rows, each with what the task predicts for it, (m, c).

        Raises:
            FusionError: data that cannot be used; the message names column and row.
        """
        for batch in self._tables(rows) if self.model.table is not None else self._arrays(rows):
            self.unseen.update(batch.unseen)
            yield batch, self.predicted(batch.views, batch.mask)

    def predicted(self, views: list[Array], mask: Array | None) -> Array:
        """Return what the task predicts for raw views (m, n_i), (m, c), and count the rows."""
        given = np.stack([~np.isnan(view).all(1) for view in views], 1) if mask is None else mask
        self.rows += len(given)
        self.absent += int((~given.any(1)).sum())
        device = self.model.scaler.get_buffer("mean_0").device
        tensors = [torch.from_numpy(np.ascontiguousarray(view)).to(device) for view in views]
        present = None if mask is None else torch.from_numpy(mask).to(device)
        return self.model.task.predicted(self.model.evaluate(tensors, present, empty=True).cpu())

    def _tables(self, rows: int) -> Iterator[Batch]:
        reading = import_module("fusionkit.experiment.tables.reading")  # It imports pandas.
        yield from reading.read_chunks(self.model.table, self.options.path, rows)

    def _arrays(self, rows: int) -> Iterator[Batch]:
        source = read_views(self.options, self.model.scaler.names)
        views, ids = list(source.views.values()), source.roles.get("id")
        names = [f"View {name!r} of {source.path}" for name in source.views]
        mask, total = presence(names, views, source.mask, self.model.scaler.impute), len(views[0])
        for start in range(0, total, rows):
            some = [view[start : start + rows] for view in views]
            chosen, named = (None if one is None else one[start : start + rows] for one in (mask, ids))
            yield Batch(start, some, named, chosen, fraction=min(1.0, (start + rows) / total))

    def evaluate(self) -> dict[str, float | None]:
        """Return the metrics on labelled data.

        Raises:
            FusionError: data that cannot be used, or a label that the run does not know.
        """
        if self.model.table is None:
            source = read_views(self.options, self.model.scaler.names, labelled=True)
        else:
            source = read_source(self.options, known=self.model.table)
        self.notes = source.notes
        target = known_target(self.model.task, source.labels, getattr(self.options, "label_separator", None))
        return self.model.task.measure(self.predicted(list(source.views.values()), source.mask), target)


def columns(predictor: Predictor, batch: Batch, predicted: Array) -> dict[str, Any]:
    """Return the columns of the predictions of a batch: name -> m values."""
    task, id = predictor.model.task, predictor.id
    values, found = task.values(predicted), dict[str, Any]()
    if task.name == "multilabel" or (task.outputs > 1 and task.name == "regression"):
        names = task.classes or task.targets
        found = {f"prediction_{name}": one for name, one in zip(names, np.array(values).T, strict=True)}
    else:
        found["prediction"] = values
    found |= {f"probability_{name}": predicted[:, i] for i, name in enumerate(task.classes)}
    if batch.ids is None or id is None:
        return {"row": np.arange(batch.start, batch.start + len(values)), **found}
    return {"id" if id in found else id: batch.ids, **found}
