"""Rows of a data set as a network takes them: standardized views, target, mask and weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionkit.config.options import RunConfig
from fusionkit.experiment.data import Dataset
from fusionkit.experiment.draws import draw_some
from fusionkit.experiment.model import FusionModel
from fusionkit.experiment.parts import Batches, Part
from fusionkit.experiment.source import Rows
from fusionkit.experiment.stream import BUFFER, StreamedPart, block_rows, buffer_blocks, members

#: The share of data.memory_gb that rows of stored views may take in memory; at least as much as the buffer.
_SHARE = 1 / 8
#: The values of all views that are standardized at once.
_PIECE = 2**23


def affordable(rows: Rows, most: int, data: Dataset, config: RunConfig) -> Rows:
    """Return rows to read at once: all; of stored views at most ``most``, or as many as their share has room for."""
    if not data.stored:
        return rows
    memory = max(_SHARE * 1e9 * getattr(config.data, "memory_gb", 1.0), BUFFER)
    return draw_some(rows, max(1, min(most, int(memory / (4 * sum(data.dims))))), config.seed)


def training_part(model: FusionModel, data: Dataset, rows: Rows) -> Batches:
    """Return rows to train on, in memory or in the files of their views."""
    if not data.stored:
        return standardized(model, data, rows)
    views: list[Any] = list(data.views.values())
    rest, member = _rest(model, data, slice(None)), members(data.rows, rows)
    return StreamedPart(views, model.scaler, rest, member, block_rows(views), buffer_blocks(views))


def standardized(model: FusionModel, data: Dataset, rows: Rows) -> Part:
    """Return rows with their views, in memory."""
    views, start = [torch.empty(len(rows), width) for width in data.dims], 0
    # The scaler computes in float64, which takes several times the memory of the result.
    for some in np.array_split(rows, max(1, len(rows) * sum(data.dims) // _PIECE)):
        found = model.scaler([np.ascontiguousarray(view[some]) for view in data.views.values()])
        for view, piece in zip(views, found, strict=True):
            view[start : start + len(some)] = piece
        start += len(some)
    return replace(_rest(model, data, rows), views=views)


def _rest(model: FusionModel, data: Dataset, rows: Rows | slice) -> Part:
    """Return target, mask and weight of rows, without views."""
    weight = data.roles.get("weight")
    weights = None if weight is None else torch.from_numpy(weight[rows].astype(np.float32))
    return Part([], model.task.tensor(data.target[rows]), present_mask(data, rows), weights)


def present_mask(data: Dataset, rows: Rows | slice) -> Tensor | None:
    """Return which views of the rows are present, (m, k); None if all views of all data are."""
    return None if data.mask is None else torch.from_numpy(data.mask[rows])
