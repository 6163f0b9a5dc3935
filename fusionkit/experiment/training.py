"""The training loop: shuffled batches of data that stay on the device.

The test part is measured after every epoch, only for the learning curve: the model is that of the last epoch.
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
from fusionkit.experiment.state import exclusive
from fusionkit.experiment.view_dropout import ViewDropout
from fusionkit.fusion import check_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Below this number of multiply-adds per step, several threads cost more than they gain; on a busy machine much more,
#: because each of thousands of small kernels waits for the slowest thread.
_SERIAL_WORK = 2**26

#: Without a terminal, a line shows the progress after this number of seconds.
_SILENCE = 30.0


@dataclass
class Part:
    """Standardized views (m, n_i) and classes (m,) of some rows; which views are present, (m, k), None if all are."""

    views: list[Tensor]
    target: Tensor
    mask: Tensor | None = None

    def to(self, device: torch.device) -> Part:
        """Return the part on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def rows(self, index: Tensor) -> Part:
        """Return the rows at ``index`` (b,)."""
        return self._each(lambda tensor: tensor.index_select(0, index))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Part:
        mask = None if self.mask is None else change(self.mask)
        return Part([change(view) for view in self.views], change(self.target), mask)


@dataclass
class History:
    """Learning curves, one value per epoch: mean training loss, accuracy on the test part, learning rate at the end."""

    loss: list[float]
    accuracy: list[float]
    lr: list[float]


@dataclass
class _Process:
    """The only process, on one device: the part of ``Fabric`` that the training uses, without its import."""

    device: torch.device
    world_size, global_rank, is_global_zero = 1, 0, True

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
class Task:
    """What to train a network on, and how; every process of the training gets it.

    Attributes:
        training: the standardized training part.
        test: the standardized test part; without it the history has no accuracy.
        settings: the recipe.
        seed: of the order of the batches and of dropout; the caller's random state does not change.
        progress: printed on stderr before the first epoch, above a progress bar; None shows neither.
        report: called after each epoch with the fraction of the training that is done, in the first process.
    """

    training: Part
    test: Part | None
    settings: TrainOptions
    seed: int
    progress: str | None = None
    report: Callable[[float], None] | None = None


@exclusive()
def train(network: nn.Module, task: Task, device: Any) -> History:
    """Train ``network`` in place; it ends on the CPU, in evaluation mode.

    Args:
        network: takes standardized views (b, n_i), returns logits (b, classes).
        task: the data and the recipe.
        device: where to train.

    Raises:
        ConfigError: a precision or a number of devices that the device does not have.
        FusionError: a device that does not exist; a loss that is NaN or infinite, with its epoch.
    """
    settings, first = task.settings, check_device(device) or torch.device("cpu")
    _check_available(first, settings)
    if settings.devices == 1 and settings.precision == "32-true":
        state, history = _fit(_Process(first), network, task)
    else:
        from fusionkit.experiment import devices

        fit, unused = partial(_fit, task=task), _has_unused_parameters(network, task)
        state, history = devices.run(fit, network, first, settings.devices, settings.precision, unused=unused)
    network.load_state_dict(state)
    network.cpu().eval()
    return History(**history)


def _has_unused_parameters(network: nn.Module, task: Task) -> bool:
    """Whether the fusion has parameters for absent views, by its option ``missing``, and no view is ever absent."""
    complete = task.training.mask is None and not task.settings.view_dropout
    part = network.fusion.missing if isinstance(network, Network) else None
    return complete and part is not None and any(parameter.requires_grad for parameter in part.parameters())


def _check_available(device: torch.device, settings: TrainOptions) -> None:
    if device.type == "meta":
        raise ConfigError("device should be one that computes, such as cpu or cuda; found 'meta'.")
    if device.type == "cpu":
        if settings.precision == "16-mixed":
            raise ConfigError("train.precision should be bf16-mixed or a true precision on the cpu; found '16-mixed'.")
        available, where = max(os.cpu_count() or 1, 8), "this machine"
    else:
        available = torch.get_device_module(device.type).device_count() - (device.index or 0)
        where = f"this machine, counted from {device}"
    if settings.devices > available:
        raise ConfigError(f"train.devices should be at most {available} on {where}; found {settings.devices}.")


def _fit(
    process: _Process | Fabric, network: nn.Module, task: Task
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """Train in this process, one of ``process.world_size``; return the tensors, and the history in JSON types."""
    with threads(network, task.settings, process.device):
        history = _epochs(process, network, task)
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}, asdict(history)


def _epochs(process: Any, network: nn.Module, task: Task) -> History:
    settings = task.settings
    test = None if task.test is None else task.test.to(process.device)
    steps = _Steps(process, network, task)
    history = History([], [], [])
    first = process.is_global_zero
    # A Network draws the same dropout in all processes, then takes the rows of its own.
    seed = task.seed + (0 if isinstance(network, Network) else process.global_rank)
    # Seeded last, because modules imported on the way here may draw numbers.
    with _Display(settings.epochs, task.progress if first else None) as display, seeded(seed, process.device):
        for epoch in range(1, settings.epochs + 1):
            loss = steps.epoch()
            if not math.isfinite(loss):
                hint = f"A smaller train.lr than {settings.lr:g} may help."
                where = f"epoch {epoch} of {settings.epochs}"
                raise FusionError(f"The training loss should be finite; found {loss} in {where}. {hint}")
            accuracy = None if test is None else _accuracy(steps.model, test)
            history.loss.append(loss)
            history.accuracy += [] if accuracy is None else [accuracy]
            history.lr.append(steps.optimizer.lr)
            display.ended(epoch, loss, accuracy)
            if task.report is not None and first:
                task.report(epoch / settings.epochs)
    return history


class _Steps:
    """The optimizer steps of one process of a training."""

    def __init__(self, process: Any, network: nn.Module, task: Task) -> None:
        settings = self.settings = task.settings
        self.process, self.network = process, network
        self.training = task.training.to(process.device)
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = Optimizer(trainable, settings.optimizer, settings.lr, settings.weight_decay)
        self.model, self.wrapped = process.setup(network, self.optimizer)
        self.loss = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing, reduction="sum")
        # The order is drawn on the CPU: the same on every device and in every process.  So are the views to drop, for
        # whole batches, by a generator of a seed that no order has.
        self.generator = torch.Generator().manual_seed(task.seed)
        self.drop, self.drops = ViewDropout(settings.view_dropout), torch.Generator().manual_seed(task.seed + 2**32)
        self.sizes = batch_sizes(len(self.training.target), settings.batch_size, process.world_size)
        self.done, self.total = 0, settings.epochs * len(self.sizes)
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
        for index in order.split(self.sizes):
            logits, target = self.share(index)
            # The mean of this loss over the processes is the mean over the whole batch, and so are the gradients.
            loss = self.loss(logits, target) * (process.world_size / len(index))
            self.optimizer.zero_grad()
            process.backward(loss)
            self.wrapped.step()
            self.done += 1
            self.schedule()
            total += loss.detach() * (len(index) / m)
        return float(process.all_reduce(total, reduce_op="mean"))

    def share(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and classes of this process's share of the batch ``index`` (b,)."""
        rows = slice(self.process.global_rank, None, self.process.world_size)
        mask = self.present(index)
        if self.process.world_size == 1 or not isinstance(self.network, Network):
            part = self.training.rows(index[rows])
            return self.model(part.views, **_masked(None if mask is None else mask[rows])), part.target
        part = self.training.rows(index)
        return self.model(part.views, rows, **_masked(mask)), part.target[rows]

    def present(self, index: Tensor) -> Tensor | None:
        """Return which views of the batch ``index`` (b,) are present and not dropped, (b, k); None: all of them."""
        training = self.training
        if training.mask is None and not self.settings.view_dropout:
            return None
        if training.mask is None:
            mask = torch.ones((len(index), len(training.views)), dtype=torch.bool, device=index.device)
        else:
            mask = training.mask.index_select(0, index)
        return self.drop(mask, self.drops)  # type: ignore[no-any-return]


def batch_sizes(rows: int, batch_size: int, processes: int = 1) -> list[int]:
    """Return the number of rows of each batch.

    A last one that leaves a process a single row, which a BatchNorm refuses, or none, joins the batch before.
    """
    whole, rest = divmod(rows, batch_size)
    sizes = [batch_size] * whole
    if whole and rest < 2 * processes:
        sizes[-1] += rest
    else:
        sizes.append(rest)
    return sizes


@torch.no_grad()
def _accuracy(model: nn.Module, part: Part) -> float:
    model.eval()
    return float((model(part.views, **_masked(part.mask)).argmax(-1) == part.target).double().mean())


def _masked(mask: Tensor | None) -> dict[str, Tensor]:
    """Return the arguments of a call with this mask; a network for complete views need not take any."""
    return {} if mask is None else {"mask": mask}


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch, NumPy and Python, and restore the random states of the caller afterwards."""
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
    """Compute with one thread where more are no faster; the result is then the same for any number of threads."""
    before = torch.get_num_threads()
    work = settings.batch_size * sum(parameter.numel() for parameter in network.parameters())
    if device.type == "cpu" and work < _SERIAL_WORK:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Display(ProgressBar):
    """Loss, accuracy and the time left: a bar on a terminal, elsewhere a line now and then.

    Args:
        epochs: of the training.
        title: printed before the first epoch; None shows nothing at all.
        clock: returns the time in seconds.
    """

    def __init__(self, epochs: int, title: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(epochs, shown=title is not None, interval=_SILENCE, clock=clock)
        self.epochs, self.begun = epochs, clock()
        if title:
            print(title, file=sys.stderr, flush=True)
        self.update(0, f"epoch 0/{epochs}")

    def ended(self, epoch: int, loss: float, accuracy: float | None) -> None:
        """Show the state after ``epoch``: as a line, the first epoch, each fifth of all, and one in 30 seconds."""
        left = (self.clock() - self.begun) / epoch * (self.epochs - epoch)
        shown = "-" if accuracy is None else f"{accuracy:.4f}"
        after = f"loss {loss:.4f}  accuracy {shown}" + (f"  {left:.0f} s left" if left >= 1 else "")
        fifth = epoch * 5 // self.epochs > (epoch - 1) * 5 // self.epochs
        self.update(epoch, f"epoch {epoch}/{self.epochs}", after, now=epoch == 1 or fifth)
