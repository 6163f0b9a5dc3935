"""A trained model, and what is measured with it on rows of its data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from fusionkit.config.options import RunConfig
from fusionkit.errors import FusionError
from fusionkit.experiment.data import Dataset
from fusionkit.experiment.draws import draw_some
from fusionkit.experiment.importance import Importance, importance
from fusionkit.experiment.model import FusionModel
from fusionkit.experiment.robustness import Mask, Views, robustness
from fusionkit.experiment.source import Array, Rows
from fusionkit.experiment.stream import block_rows, members, read_blocks
from fusionkit.experiment.tensors import affordable, present_mask, standardized
from fusionkit.experiment.training import History, threads
from fusionkit.experiment.view_weights import Weights, mean_weights

#: The most rows on which the importance of views is measured; where views stay in their files, also robustness and
#: weights, because these rows are read at once.
_DISTURBED = 10_000


@dataclass(frozen=True)
class Trained:
    """A trained model; it computes on the CPU.

    Attributes:
        config: of the run.
        model: of the best epoch.
        data: fitted to the training rows.
        history: of the training.
    """

    config: RunConfig
    model: FusionModel
    data: Dataset
    history: History

    def predicted(self, rows: Rows) -> Array:
        """Return what the task predicts for rows.

        Raises:
            FusionError: outputs that are not finite.
        """
        try:
            with threads(self.model.network, self.config.train, torch.device("cpu")):
                return self._predicted(rows)
        except FusionError as error:
            last = ", the last" if self.history.best_epoch == len(self.history.loss) else ""
            raise FusionError(f"{str(error).rstrip('.')} after epoch {self.history.best_epoch}{last}.") from error

    def _predicted(self, rows: Rows) -> Array:
        data, model = self.data, self.model
        if not data.stored:
            views = [view[rows] for view in data.views.values()]
            return model.task.predicted(model.evaluate(views, present_mask(data, rows)))
        # Rows without any view are refused only where there are no others, as in memory.
        empty = data.mask is not None and bool(data.mask[rows].any())
        stored: list[Any] = list(data.views.values())
        order, member = np.argsort(rows), members(data.rows, rows)
        found, done = np.empty((len(rows), model.task.outputs)), 0
        for start, block in read_blocks(stored, block_rows(stored), member):
            own = member[start : start + len(block[0])]
            present = None if data.mask is None else torch.from_numpy(data.mask[start : start + len(own)][own])
            output = model.evaluate([view[own] for view in block], present, empty=empty)
            found[order[done : done + len(output)]] = model.task.predicted(output)
            done += len(output)
        return found

    def robustness(self, rows: Rows) -> dict[str, dict[str, float | None]]:
        """Return the task's first metric on rows with views missing and noisy."""
        rows = self._few(rows)
        part, mask = self._disturbed(rows)
        score = partial(self._score, self.model.task.metric(None), self.data.target[rows])
        refuses = not self.model.fusion.takes_masks
        with threads(self.model.network, self.config.train, torch.device("cpu")):
            return robustness(score, part, seed=self.config.seed, mask=mask, refuses=refuses)

    def importance(self, rows: Rows, metric: str) -> tuple[float | None, Importance]:
        """Return ``whole``, and how much each view matters to it."""
        seed, rows = self.config.seed, self._drawn(rows)
        views, mask = self._disturbed(rows)
        score = partial(self._score, metric, self.data.target[rows])
        refuses = not self.model.fusion.takes_masks
        with threads(self.model.network, self.config.train, torch.device("cpu")):
            whole = score(list(views.values()), mask)
            return whole, importance(metric, score, views, whole, seed=seed, mask=mask, refuses=refuses)

    def whole(self, rows: Rows, metric: str) -> float | None:
        """Return a metric on rows, of which there is at least one, or on some of very many."""
        rows = self._drawn(rows)
        views, mask = self._disturbed(rows)
        with threads(self.model.network, self.config.train, torch.device("cpu")):
            return self._score(metric, self.data.target[rows], list(views.values()), mask)

    def _drawn(self, rows: Rows) -> Rows:
        return draw_some(self._few(rows), _DISTURBED, self.config.seed)

    def weights(self, rows: Rows) -> Weights | None:
        """Return the mean weights of the views in the fusion on rows; None if it does not say any."""
        model, data, rows = self.model, self.data, self._few(rows)
        if not model.fusion.explains():
            return None
        views = [view[rows] for view in data.views.values()]
        with threads(model.network, self.config.train, torch.device("cpu")):
            weights = model.explain(views, present_mask(data, rows)).get("weights")
        if weights is None:
            return None
        mask = None if data.mask is None else data.mask[rows]
        return mean_weights(weights.double().numpy(), mask, model.task.groups(data.target[rows]), list(data.views))

    def _few(self, rows: Rows) -> Rows:
        """Return the rows to read at once: all of them, but only some where the views stay in their files."""
        return affordable(rows, _DISTURBED, self.data, self.config)

    def _disturbed(self, rows: Rows) -> tuple[dict[str, Array], Mask | None]:
        """Return the standardized views of rows by name, (m, n_i), and which are present, (m, k), to change them."""
        part = standardized(self.model, self.data, rows)
        views = {name: view.numpy() for name, view in zip(self.data.views, part.views, strict=True)}
        return views, None if part.mask is None else part.mask.numpy()

    @torch.no_grad()
    def _score(self, metric: str, target: Array, views: Views, mask: Mask | None) -> float | None:
        """Return a metric of the trained network for standardized views (m, n_i) and a mask; None: it is undefined."""
        task, network = self.model.task, self.model.network
        given = [torch.from_numpy(view).to(network.dtype) for view in views]
        output = network(given, mask=None if mask is None else torch.from_numpy(mask))
        return task.score(metric, task.predicted(task.in_units(output.double())), target)
