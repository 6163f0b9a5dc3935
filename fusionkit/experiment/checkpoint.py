"""Checkpoints: what a training has reached after an epoch, in one file of tensors and JSON, to go on from later.

Like a trained model, a checkpoint is never unpickled, and each of its values is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fusionkit._util.files import write_atomic
from fusionkit._util.text import error_message, one_line
from fusionkit.config.keys import walk
from fusionkit.config.sentences import mistakes
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import results
from fusionkit.experiment.load import opened

#: The one key of the safetensors metadata.
_KEY = "fusionkit"
SCHEMA_VERSION: Final = 1
#: The last checkpoint may have been written just before a disk failed, so the one before it stays.
_KEPT = 2

Seconds = Annotated[float, Field(ge=0, le=1e10)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Curves(_Facts):
    """A ``training.History``."""

    loss: list[float]
    score: list[float | None]
    lr: list[float]
    best_epoch: results.Natural


class First(_Facts):
    """What the first training of ``train.refit`` gave: its curves, and the metrics on the validation part."""

    history: Curves
    validation: dict[str, float | None]


class Facts(_Facts):
    """What a checkpoint says in JSON.

    Attributes:
        config: of the run, as it was composed.
        config_hash: of that config, its data and the operators' versions.
        data: the digest of the data.
        versions: of the distributions.
        seconds: that the run has taken so far.
        first: in the second training of ``train.refit``, what the first one gave.
        history: the curves so far, a value per epoch that is done.
        best_epoch: the best so far; 0 where no part chooses it, or none has a value.
        best_value: of that epoch, so that more is better.
        gradient_scaler: the state of the gradient scaler of train.precision=16-mixed.
        digest: of the tensors.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    config: dict[str, Any]
    config_hash: results.Name
    data: results.Name
    versions: dict[str, str]
    seconds: Seconds
    first: First | None
    history: Curves
    best_epoch: results.Natural
    best_value: float | None
    gradient_scaler: dict[str, int | float]
    digest: results.Name


_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: its file.
        facts: about the run and the training.
        tensors: by name.
    """

    path: Path
    facts: Facts
    tensors: Mapping[str, Tensor]

    @property
    def epoch(self) -> int:
        """The epoch after which the training goes on."""
        return len(self.facts.history.loss)

    @property
    def place(self) -> str:
        """That epoch in words."""
        return f"epoch {self.epoch}{'' if self.facts.first is None else ' of the refit'}"

    def for_processes(self, count: int) -> Checkpoint:
        """Return the checkpoint for ``count`` processes: new ones have the random states of the first."""
        tensors = dict(self.tensors)
        for name, states in self.tensors.items():
            if name.startswith("random.") and states.ndim and len(states):
                tensors[name] = states[[rank if rank < len(states) else 0 for rank in range(count)]]
        return replace(self, tensors=tensors)

    def check(self, wanted: Mapping[str, Tensor]) -> None:
        """Compare the tensors with those that the training has.

        Raises:
            FusionError: other names, shapes or dtypes.
        """
        for name in sorted(wanted.keys() | self.tensors.keys()):
            here, there = (_described(tensors.get(name)) for tensors in (wanted, self.tensors))
            if here != there:
                self.refuse(f"{here} as {name!r}", there)

    def refuse(self, wanted: str, found: object) -> None:
        """Say that the checkpoint is not one of this training.

        Raises:
            FusionError: always.
        """
        raise FusionError(f"{self.path} should be a checkpoint of this training, with {wanted}; found {found}.")


def _described(tensor: Tensor | None) -> str:
    return "no tensor" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a training writes checkpoints.  Processes of a training are sent it.

    Attributes:
        run_dir: of the run.
        every: epochs between two; None writes none.
        about: the run: ``config``, ``config_hash``, ``data`` and ``versions`` of ``Facts``.
        begun: ``time.perf_counter()`` at the start of the run, less the seconds before it was resumed.
        first: as in ``Facts``, in plain JSON types.
        found: where the training goes on; None: it begins.
    """

    run_dir: Path
    every: int | None
    about: Mapping[str, Any]
    begun: float
    first: Mapping[str, Any] | None = None
    found: Checkpoint | None = None

    def due(self, epoch: int) -> bool:
        """Whether a checkpoint is written after ``epoch``."""
        return self.every is not None and epoch % self.every == 0

    def save(self, epoch: int, tensors: Mapping[str, Tensor], **state: Any) -> None:
        """Write the checkpoint of ``epoch`` atomically and remove all others but the one before it.

        A file that cannot be written is a warning: the training may still come to its end.

        Args:
            epoch: counted from 1.
            tensors: on any device.
            **state: ``history``, ``best_epoch``, ``best_value`` and ``gradient_scaler`` of ``Facts``.
        """
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        facts = {"schema_version": SCHEMA_VERSION, **self.about, "first": self.first, **state}
        facts |= {"seconds": time.perf_counter() - self.begun, "digest": _digest(copies)}
        metadata = {_KEY: json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)}
        path = results.checkpoint_path(self.run_dir, epoch, refit=self.first is not None)
        try:
            write_atomic(path, lambda temporary: save_file(copies, temporary, metadata=metadata))
            written = results.checkpoints(self.run_dir)
            last = written.index(path) + 1  # A later one was damaged when the run was resumed.
            for other in {*written} - {*written[max(0, last - _KEPT) : last]}:
                other.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            problem = f"The checkpoint of epoch {epoch} could not be written: {error_message(error)}"
            warnings.warn(problem, RuntimeWarning, stacklevel=2)


def newest(run_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest complete checkpoint in a directory, and a sentence about each damaged one that is newer."""
    problems: list[str] = []
    for path in reversed(results.checkpoints(run_dir)):
        try:
            return read(path), problems
        except FusionError as error:
            problems.append(str(error))
    return None, problems


def read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FusionError: it is damaged, or no checkpoint.
    """
    with opened(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    try:
        found = json.loads(metadata[_KEY])
        for _ in walk(found, "A checkpoint"):  # It refuses deep nesting.
            pass
    except (KeyError, ValueError, RecursionError, ConfigError):
        raise FusionError(
            f"{path} should describe its training in the metadata {_KEY!r}; found another text."
        ) from None
    if wrong := mistakes(_FACTS, found):
        raise FusionError(f"{path} should be the checkpoint of a run: {one_line(' '.join(wrong.values()), 400)}")
    facts = _FACTS.validate_python(found)
    if facts.digest != _digest(tensors):
        raise FusionError(f"{path} should hold the tensors that were written; found others: it is damaged.")
    return Checkpoint(path, facts, tensors)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of contiguous tensors on the CPU, with their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {_described(tensors[name])}".encode(errors="backslashreplace"))
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# -- random states -----------------------------------------------------------------------------------------------------


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the global generators of Python, NumPy and torch, and of torch's on ``device``."""
    _, words, gauss = random.getstate()
    numpy: Any = np.random.get_state()
    states = {
        "python": torch.tensor([*words, math.nan if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.tensor([*numpy[1].tolist(), *numpy[2:]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device.type).get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the generators to what ``random_states`` returned.

    Raises:
        ValueError, RuntimeError: states that no generator has.
    """
    *words, gauss = states["python"].tolist()
    random.setstate((3, tuple(map(_whole, words)), None if math.isnan(gauss) else gauss))
    *keys, position, has_gauss, cached = states["numpy"].tolist()
    if not 0 <= position <= len(keys):  # NumPy would read beyond the end.
        raise ValueError(f"the position {position} of NumPy's generator")
    numbers = np.array([*map(_whole, keys)], dtype=np.uint32)
    np.random.set_state(("MT19937", numbers, _whole(position), _whole(has_gauss), cached))
    torch.set_rng_state(states["torch"].clone())  # torch expects the alignment of memory of its own.
    if device.type != "cpu":
        torch.get_device_module(device.type).set_rng_state(states["device"].clone(), device)


def _whole(value: float) -> int:
    if not 0 <= value < 2**32 or value != int(value):
        raise ValueError(f"{value} in the state of a generator")
    return int(value)
