"""Predictions of a trained run on new data, and its metrics on labelled data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionkit.config.options import FileOptions, FolderOptions, TableOptions, data_options
from fusionkit.experiment.data import is_stored, read_source
from fusionkit.experiment.folder import read_stored
from fusionkit.experiment.load import load
from fusionkit.experiment.missing import presence
from fusionkit.experiment.npz import read_views
from fusionkit.experiment.results import RESULT, read_result
from fusionkit.experiment.source import Array, Batch, Source
from fusionkit.experiment.tasks.choice import known_target

#: Rows that ``evaluate`` reads at a time.
_ROWS = 10_000
#: Of views in float64 that the model takes at a time: with more the allocator gives memory back and asks for it again,
#: 60 ms for 8192 rows of mfeat in place of 38.
_BYTES = 2**23


class Predictor:
    """Predicts new data with a trained run.

    Args:
        run_dir: the directory of a completed run.
        path: the new data: a table, or one per view if the run was trained on such; of a run on arrays a ``.npz`` file
            or a folder of ``.npy`` files, whichever it was trained on.
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
        if node["name"] != "table":  # Registered data sets are arrays too.
            folder = isinstance(path, str) and Path(path).is_dir()
            node = {"name": "folder" if folder else "npz", "missing": node.get("missing", "nan")}
        self.options: FileOptions = data_options({**node, "path": path})  # type: ignore[assignment]
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
        self.rows += len(views[0])
        self.absent += _without_view(views) if mask is None else int((~mask.any(1)).sum())
        step = max(1, _BYTES // (8 * sum(self.model.scaler.dims)))
        starts = range(0, max(1, len(views[0])), step)
        return np.concatenate([self._predicted(views, mask, slice(start, start + step)) for start in starts])

    def _predicted(self, views: list[Array], mask: Array | None, rows: slice) -> Array:
        device = self.model.scaler.get_buffer("mean_0").device
        tensors = [torch.from_numpy(np.ascontiguousarray(view[rows])).to(device) for view in views]
        present = None if mask is None else torch.from_numpy(mask[rows]).to(device)
        return self.model.task.predicted(self.model.evaluate(tensors, present, empty=True).cpu())

    def _tables(self, rows: int) -> Iterator[Batch]:
        reading = import_module("fusionkit.experiment.tables.reading")  # It imports pandas.
        yield from reading.read_chunks(self.model.table, self.options.path, rows)

    def _arrays(self, rows: int) -> Iterator[Batch]:
        yield from self._array_batches(self._views(), rows)

    def _views(self, labelled: bool = False) -> Source:
        """Return the new data; those of a folder stay there, but for mask and label."""
        read = read_stored if isinstance(self.options, FolderOptions) else read_views
        return read(self.options, self.model.scaler.names, labelled)

    def _array_batches(self, source: Source, rows: int) -> Iterator[Batch]:
        """Yield the rows of arrays; those that are in memory are checked first, the others batch by batch."""
        views, ids, impute = list(source.views.values()), source.roles.get("id"), self.model.scaler.impute
        names = [f"View {name!r} of {source.path}" for name in source.views]
        mask, total, stored = source.mask, len(views[0]), is_stored(source)
        if not stored:
            mask = presence(names, views, mask, impute)
        for start in range(0, total, rows):
            some = [view[start : start + rows] for view in views]
            chosen, named = (None if one is None else one[start : start + rows] for one in (mask, ids))
            if stored:
                chosen = presence(names, some, chosen, impute, first=start)
            yield Batch(start, some, named, chosen, fraction=min(1.0, (start + rows) / total))

    def evaluate(self) -> dict[str, float | None]:
        """Return the metrics on labelled data.

        Raises:
            FusionError: data that cannot be used, or a label that the run does not know.
        """
        if self.model.table is None:
            source = self._views(labelled=True)
        else:
            source = read_source(self.options, known=self.model.table)
        self.notes = source.notes
        target = known_target(self.model.task, source.labels, getattr(self.options, "label_separator", None))
        if is_stored(source):
            batches = self._array_batches(source, _ROWS)
            predicted = np.concatenate([self.predicted(batch.views, batch.mask) for batch in batches])
        else:
            predicted = self.predicted(list(source.views.values()), source.mask)
        return self.model.task.measure(predicted, target)


def _without_view(views: list[Array]) -> int:
    """Return the number of rows of views (m, n_i) all of which are NaN."""
    absent = np.ones(len(views[0]), dtype=bool)
    for view in views:
        if math.isfinite(float(view.sum())):  # As it is nearly always; the rest takes several times as long.
            return 0
        absent &= np.isnan(view).all(1)
    return int(absent.sum())


def columns(predictor: Predictor, batch: Batch, predicted: Array) -> dict[str, Any]:
    """Return the columns of the predictions of a batch: name -> m values."""
    task, id = predictor.model.task, predictor.id
    values, found = task.array(predicted), dict[str, Any]()
    if values.ndim == 2:
        names = task.classes or task.targets
        found = {f"prediction_{name}": one for name, one in zip(names, values.T, strict=True)}
    else:
        found["prediction"] = values
    found |= {f"probability_{name}": one for name, one in zip(task.classes, predicted.T, strict=False)}
    if batch.ids is None or id is None:
        return {"row": np.arange(batch.start, batch.start + len(values)), **found}
    return {"id" if id in found else id: batch.ids, **found}
