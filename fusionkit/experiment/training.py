"""The training loop: shuffled batches of data that stay on the device, AdamW, one-cycle rate, label smoothing.

The test part is measured after every epoch for the learning curve; nothing is selected by it: the model is the one
after the last epoch.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fusionkit._util.progress import ProgressBar
from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.model import Network
from fusionkit.experiment.optimizer import Optimizer, one_cycle
from fusionkit.fusion import check_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["History", "Part", "seeded", "threads", "train"]

#: Multiply-adds of a step, up to which threads cost more than they gain: much more on a machine that has other work,
#: where each of thousands of small kernels would wait for the slowest thread.
_SERIAL_WORK = 2**26

#: Without a terminal, seconds of training after which a line says how far it is.
_SILENCE = 30.0


@dataclass
class Part:
    """Standardized views (m, n_i) and classes (m,) of some rows."""

    views: list[Tensor]
    target: Tensor

    def to(self, device: torch.device) -> Part:
        """Return the part on ``device``."""
        return Part([view.to(device) for view in self.views], self.target.to(device))

    def rows(self, index: Tensor) -> Part:
        """Return the rows at ``index`` (b,)."""
        return Part([view.index_select(0, index) for view in self.views], self.target.index_select(0, index))


@dataclass
class History:
    """Learning curves, one value per epoch: mean training loss, accuracy on the test part, learning rate at the end."""

    loss: list[float]
    accuracy: list[float]
    lr: list[float]

    def to_json(self) -> dict[str, list[float]]:
        """Return plain JSON types."""
        return asdict(self)


class _Process:
    """One process on one device: what the training needs of ``Fabric``, without importing it."""

    world_size, global_rank, is_global_zero = 1, 0, True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def setup(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Return the network, moved to the device, and its optimizer."""
        return network.to(self.device), optimizer

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of ``loss``."""
        loss.backward()

    def all_reduce(self, value: Tensor, reduce_op: str) -> Tensor:
        """Return ``value`` (), reduced over the processes."""
        return value


@dataclass
class _Task:
    """What every process of a training is given."""

    training: Part
    test: Part | None
    settings: TrainOptions
    seed: int
    progress: str | None
    report: Callable[[float], None] | None


def train(
    network: nn.Module,
    training: Part,
    test: Part | None,
    settings: TrainOptions,
    *,
    device: Any,
    seed: int,
    progress: str | None = "",
    report: Callable[[float], None] | None = None,
) -> History:
    """Train ``network`` in place; it ends on the CPU, in evaluation mode.

    Args:
        network: takes standardized views (b, n_i), returns logits (b, classes).
        training: the standardized training part.
        test: the standardized test part, which is only measured; without one the history has no accuracy.
        settings: the recipe.
        device: where to train.
        seed: of the order of the batches and of dropout; the caller's random state is left as it was.
        progress: what to say on stderr before the first epoch, above a progress bar; None shows neither.
        report: called after each epoch with the part of the training that is done, in the first process.

    Raises:
        ConfigError: a precision or a number of devices that the device does not offer.
        FusionError: a device that does not exist; a loss that is NaN or infinite, with its epoch.
    """
    place = check_device(device) or torch.device("cpu")
    _check_offered(place, settings)
    task = _Task(training, test, settings, seed, progress, report)
    if settings.devices == 1 and settings.precision == "32-true":
        state, history = _fit(_Process(place), network, task)
    else:
        from fusionkit.experiment import devices

        state, history = devices.run(partial(_fit, task=task), network, place, settings.devices, settings.precision)
    network.load_state_dict(state)
    network.cpu().eval()
    return History(**history)


def _check_offered(device: torch.device, settings: TrainOptions) -> None:
    if device.type == "meta":
        raise ConfigError("device should be one that computes, such as cpu or cuda; found 'meta'.")
    if device.type == "cpu":
        if settings.precision == "16-mixed":
            raise ConfigError("train.precision should be bf16-mixed or a true precision on the cpu; found '16-mixed'.")
        available, where = max(os.cpu_count() or 1, 8), "on this machine"
    else:
        available = torch.get_device_module(device.type).device_count() - (device.index or 0)
        where = f"from {device} on"
    if settings.devices > available:
        raise ConfigError(f"train.devices should be at most {available} {where}; found {settings.devices}.")


def _fit(
    process: _Process | Fabric, network: nn.Module, task: _Task
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """Train in this process, one of ``process.world_size``; return the tensors and the history in JSON types."""
    with threads(network, task.settings, process.device):
        history = _epochs(process, network, task)
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}, history.to_json()


def _epochs(process: Any, network: nn.Module, task: _Task) -> History:
    settings = task.settings
    test = None if task.test is None else task.test.to(process.device)
    steps = _Steps(process, network, task)
    history = History([], [], [])
    first = process.is_global_zero
    # A Network drops inputs alike in all processes, and then takes its rows.
    seed = task.seed + (0 if isinstance(network, Network) else process.global_rank)
    # Seeded last: what is imported on the way here may draw, once per process.
    with _Display(settings.epochs, task.progress if first else None) as display, seeded(seed, process.device):
        for epoch in range(1, settings.epochs + 1):
            loss = steps.epoch()
            if not math.isfinite(loss):
                raise FusionError(
                    f"The training loss should be finite; found {loss} in epoch {epoch} of {settings.epochs}. "
                    f"A smaller train.lr than {settings.lr:g} may help."
                )
            history.loss.append(loss)
            if test is not None:
                history.accuracy.append(_accuracy(steps.model, test))
            history.lr.append(steps.optimizer.lr)
            display.update(epoch, loss, history.accuracy[-1] if test is not None else None)
            if task.report is not None and first:
                task.report(epoch / settings.epochs)
    return history


class _Steps:
    """The steps of a training, in one of its processes."""

    def __init__(self, process: Any, network: nn.Module, task: _Task) -> None:
        settings = self.settings = task.settings
        self.process, self.network = process, network
        self.training = task.training.to(process.device)
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = Optimizer(trainable, settings.optimizer, settings.lr, settings.weight_decay)
        self.model, self.wrapped = process.setup(network, self.optimizer)
        self.measure = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing, reduction="sum")
        # The order is drawn on the CPU: the same on every device and in every process.
        self.generator = torch.Generator().manual_seed(task.seed)
        self.done, self.total = 0, settings.epochs * math.ceil(len(self.training.target) / settings.batch_size)
        self.schedule()

    def schedule(self) -> None:
        """Set learning rate and momentum of the next step."""
        if self.settings.scheduler == "onecycle":
            self.optimizer.lr, self.optimizer.momentum = one_cycle(self.done, self.total, self.settings.lr)

    def epoch(self) -> float:
        """Train on all rows once; return the mean loss."""
        m, process = len(self.training.target), self.process
        self.model.train()
        total = torch.zeros((), device=process.device)
        order = torch.randperm(m, generator=self.generator).to(process.device)
        for index in order.split(self.settings.batch_size):
            logits, target = self.share(index)
            # The mean of the gradients of the processes is that of the whole batch.
            loss = self.measure(logits, target) * (process.world_size / len(index))
            self.optimizer.zero_grad()
            process.backward(loss)
            self.wrapped.step()
            self.done += 1
            self.schedule()
            total += loss.detach() * (len(index) / m)
        return float(process.all_reduce(total, reduce_op="mean"))

    def share(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and classes of those rows of the batch ``index`` (b,) that are this process's."""
        rows = slice(self.process.global_rank, None, self.process.world_size)
        if self.process.world_size == 1 or not isinstance(self.network, Network):
            part = self.training.rows(index[rows])
            return self.model(part.views), part.target
        part = self.training.rows(index)
        return self.model(part.views, rows), part.target[rows]


@torch.no_grad()
def _accuracy(model: nn.Module, part: Part) -> float:
    model.eval()
    return float((model(part.views).argmax(-1) == part.target).double().mean())


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from ``seed``, also where an operator draws by NumPy or Python; the caller's random states are kept."""
    python, numpy = random.getstate(), np.random.get_state()
    indices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(indices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def threads(network: nn.Module, settings: TrainOptions, device: torch.device) -> Iterator[None]:
    """Compute with one thread where more do not pay; so the result does not depend on how many there are."""
    before = torch.get_num_threads()
    work = settings.batch_size * sum(parameter.numel() for parameter in network.parameters())
    if device.type == "cpu" and work < _SERIAL_WORK:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Display:
    """Loss, accuracy and the time left: a bar on a terminal, elsewhere a line now and then.

    Args:
        epochs: of the training.
        title: said before the first; None shows nothing at all.
        clock: of the time, in seconds.
    """

    def __init__(self, epochs: int, title: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.epochs, self.title, self.clock, self.begun = epochs, title, clock, clock()
        self.bar = ProgressBar(epochs, shown=title is not None, interval=_SILENCE, clock=clock)

    def __enter__(self) -> _Display:
        if self.title:
            print(self.title, file=sys.stderr, flush=True)
        self.bar.__enter__()
        self.bar.update(0, f"epoch 0/{self.epochs}")
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def update(self, epoch: int, loss: float, accuracy: float | None) -> None:
        """Show the state after ``epoch``: as a line, the first epoch, each fifth of all, and one in 30 seconds."""
        left = (self.clock() - self.begun) / epoch * (self.epochs - epoch)
        shown = "-" if accuracy is None else f"{accuracy:.4f}"
        after = f"loss {loss:.4f}  accuracy {shown}" + (f"  {left:.0f} s left" if left >= 1 else "")
        fifth = epoch * 5 // self.epochs > (epoch - 1) * 5 // self.epochs
        self.bar.update(epoch, f"epoch {epoch}/{self.epochs}", after, now=epoch == 1 or fifth)
