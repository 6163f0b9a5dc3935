"""The training loop: shuffled batches of data that stay on the device, AdamW, one-cycle rate, label smoothing.

One process or several (``ddp_spawn``) through lightning-fabric, which also handles precision.  The test part is
measured after every epoch for the learning curve; nothing is selected by it: the model is the one after the last epoch.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.model import Network
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


class _Task:
    """What a process needs to know; no dataclass, because lightning-fabric refuses frozen ones among its arguments."""

    def __init__(
        self,
        training: Part,
        test: Part | None,
        settings: TrainOptions,
        seed: int,
        progress: str | None,
        report: Callable[[float], None] | None,
    ) -> None:
        self.training, self.test, self.settings, self.seed = training, test, settings, seed
        self.progress, self.report = progress, report

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin in a new process: lightning-fabric, whose import sets its level, announces each of them."""
        import lightning_fabric

        logging.getLogger(lightning_fabric.__name__).setLevel(logging.WARNING)
        self.__dict__.update(state)


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
        report: is told after each epoch which part of the training is done, by the first process.

    Raises:
        ConfigError: a precision or a number of devices that the device does not offer.
        FusionError: a device that does not exist; a loss that is NaN or infinite, with its epoch.
    """
    fabric = _fabric(check_device(device) or torch.device("cpu"), settings)
    task = _Task(training, test, settings, seed, progress, report)
    with _quiet():
        state, history = (_fit if fabric.world_size == 1 else _spawn)(fabric, network, task)
    network.load_state_dict(state)
    network.cpu().eval()
    return history


def _fabric(device: torch.device, settings: TrainOptions) -> Fabric:
    if device.type == "meta":
        raise ConfigError("device should be one that computes, such as cpu or cuda; found 'meta'.")
    if settings.precision == "16-mixed" and device.type == "cpu":
        raise ConfigError("train.precision should be bf16-mixed or a true precision on the cpu; found '16-mixed'.")
    devices: Any = settings.devices
    processors = max(os.cpu_count() or 1, 8)
    if device.type == "cpu" and settings.devices > processors:
        raise ConfigError(f"train.devices should be at most {processors} on this machine; found {settings.devices}.")
    if device.type != "cpu":
        available = torch.get_device_module(device.type).device_count()
        first = device.index or 0
        if first + settings.devices > available:
            raise ConfigError(
                f"train.devices should be at most {available - first} from {device} on; found {settings.devices}."
            )
        devices = list(range(first, first + settings.devices))
    from lightning_fabric import Fabric

    return Fabric(
        accelerator=device.type,
        devices=devices,
        strategy="ddp_spawn" if settings.devices > 1 else "auto",
        precision=settings.precision,
    )


def _spawn(fabric: Fabric, network: nn.Module, task: _Task) -> tuple[dict[str, Tensor], History]:
    """Train in ``fabric.world_size`` new processes.

    The outcome comes back through a file: a tensor in a queue is lost with the process that sent it, and what is larger
    than a pipe's buffer would wait for ever, as the queue is read after the processes have ended.
    """
    from safetensors import safe_open
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    with tempfile.TemporaryDirectory(prefix="fusionkit-") as folder, _spawning():
        path = Path(folder) / "outcome.safetensors"
        before = multiprocessing.active_children()
        try:
            fabric.launch(_spawned, network, task, path)  # type: ignore[arg-type]
        except KeyboardInterrupt:  # Which the processes need not have got; Python would wait for them to end.
            for process in multiprocessing.active_children():
                if process not in before:
                    process.kill()
                    process.join()
            raise
        except (ProcessRaisedException, ProcessExitedException) as error:
            # Its message is a whole traceback, whose last line says what went wrong.
            last = str(error).strip().splitlines()[-1]
            raise FusionError(f"The training processes should end without an error; found {last}") from error
        if not path.is_file():
            raise FusionError("The training processes should end with the trained model; found none.")
        with safe_open(path, framework="pt") as file:
            outcome = json.loads(file.metadata()["outcome"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    if outcome["error"] is not None:
        raise FusionError(outcome["error"])
    return state, History(**outcome["history"])


def _spawned(fabric: Fabric, network: nn.Module, task: _Task, path: Path) -> None:
    """Train in one of several processes; the first leaves the outcome at ``path``."""
    from safetensors.torch import save_file

    outcome: dict[str, Any] = {"error": None, "history": None}
    state: dict[str, Tensor] = {}
    with _quiet():
        try:
            state, history = _fit(fabric, network, task)
            outcome["history"] = history.to_json()
        except FusionError as error:  # In all processes at once, as the loss is reduced over them.
            outcome["error"] = str(error)
    if fabric.is_global_zero:
        save_file({name: tensor.clone() for name, tensor in state.items()}, path, {"outcome": json.dumps(outcome)})
    # A process that exits with the group's threads still running can be aborted by the C++ runtime.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _fit(fabric: Fabric, network: nn.Module, task: _Task) -> tuple[dict[str, Tensor], History]:
    """Train in this process, one of ``fabric.world_size``."""
    with threads(network, task.settings, fabric.device):
        history = _epochs(fabric, network, task)
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}, history


def _epochs(fabric: Fabric, network: nn.Module, task: _Task) -> History:
    settings = task.settings
    training = task.training.to(fabric.device)
    test = None if task.test is None else task.test.to(fabric.device)
    m = len(training.target)
    optimizer = _optimizer(network, settings)
    total = settings.epochs * math.ceil(m / settings.batch_size)
    scheduler = _scheduler(optimizer, settings, total)
    model, optimizer = fabric.setup(network, optimizer)
    measure = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing, reduction="sum")
    # The order is drawn on the CPU: the same on every device and in every process.
    generator = torch.Generator().manual_seed(task.seed)
    history = History([], [], [])
    first = fabric.is_global_zero
    # A Network drops inputs alike in all processes, and then takes its rows.
    seed = task.seed + (0 if isinstance(network, Network) else fabric.global_rank)
    # Seeded last: what is imported on the way here may draw, once per process.
    with _Progress(settings.epochs, task.progress if first else None) as bar, seeded(seed, fabric.device):
        for epoch in range(1, settings.epochs + 1):
            model.train()
            total_loss = torch.zeros((), device=fabric.device)
            order = torch.randperm(m, generator=generator).to(fabric.device)
            for index in order.split(settings.batch_size):
                logits, target = _share(fabric, model, network, training, index)
                # The mean of the gradients of the processes is that of the whole batch.
                loss = measure(logits, target) * (fabric.world_size / len(index))
                optimizer.zero_grad()
                fabric.backward(loss)
                optimizer.step()
                scheduler.step()
                total_loss += loss.detach() * (len(index) / m)
            mean_loss = float(cast(Tensor, fabric.all_reduce(total_loss, reduce_op="mean")))
            if not math.isfinite(mean_loss):
                raise FusionError(
                    f"The training loss should be finite; found {mean_loss} in epoch {epoch} of {settings.epochs}. "
                    f"A smaller train.lr than {settings.lr:g} may help."
                )
            history.loss.append(mean_loss)
            if test is not None:
                history.accuracy.append(_accuracy(model, test))
            history.lr.append(float(scheduler.get_last_lr()[0]))
            bar.update(epoch, mean_loss, history.accuracy[-1] if test is not None else None)
            if task.report is not None and first:
                task.report(epoch / settings.epochs)
    return history


def _share(fabric: Fabric, model: Any, network: nn.Module, training: Part, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and classes of those rows of the batch ``index`` that are this process's: every world_size-th."""
    if fabric.world_size == 1 or not isinstance(network, Network):
        part = training.rows(index[fabric.global_rank :: fabric.world_size])
        return model(part.views), part.target
    part, rows = training.rows(index), slice(fabric.global_rank, None, fabric.world_size)
    return model(part.views, rows), part.target[rows]


@torch.no_grad()
def _accuracy(model: nn.Module, part: Part) -> float:
    model.eval()
    return float((model(part.views).argmax(-1) == part.target).double().mean())


def _optimizer(network: nn.Module, settings: TrainOptions) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        # Biases and gains are no matrices: decay would only shift them.
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)
    cls = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return cls(groups, lr=settings.lr, fused=True)


def _scheduler(
    optimizer: torch.optim.Optimizer, settings: TrainOptions, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.scheduler == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps)


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


@contextmanager
def _spawning() -> Iterator[None]:
    """Let new processes start as fresh interpreters; afterwards all is as before, for the next run."""
    before = {name: os.environ.get(name) for name in ("MASTER_PORT", "MASTER_ADDR")}
    method = multiprocessing.get_start_method(allow_none=True)
    # In a worker of joblib it is one of its own, which the processes would not know.
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(method, force=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lightning-fabric's notes about devices and precision off the screen."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning_fabric")
            yield
    finally:
        logger.setLevel(level)


class _Progress:
    """A bar with loss, accuracy and time left on a terminal; elsewhere a line now and then.

    Args:
        epochs: how many there will be.
        title: said before the first; None shows nothing at all.
        clock: of the time, in seconds.
    """

    def __init__(self, epochs: int, title: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs, self.title, self.clock = epochs, title, clock
        self.begun = self.told = clock()
        self.lines = title is not None and not sys.stderr.isatty()
        self.bar = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("accuracy {task.fields[accuracy]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=Console(stderr=True),
            disable=title is None or self.lines,
        )
        self.task = self.bar.add_task("", total=epochs, loss="-", accuracy="-")

    def __enter__(self) -> _Progress:
        if self.title:
            print(self.title, file=sys.stderr, flush=True)
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, epoch: int, loss: float, accuracy: float | None) -> None:
        """Show the state after ``epoch``: as a line, the first epoch, each fifth of all, and one in 30 seconds."""
        shown = "-" if accuracy is None else f"{accuracy:.4f}"
        self.bar.update(self.task, completed=epoch, loss=f"{loss:.4f}", accuracy=shown)
        fifth = epoch * 5 // self.epochs > (epoch - 1) * 5 // self.epochs
        if self.lines and (epoch == 1 or fifth or self.clock() - self.told >= _SILENCE):
            self.told = self.clock()
            left = (self.told - self.begun) / epoch * (self.epochs - epoch)
            rest = f"  {left:.0f} s left" if left >= 1 else ""
            print(f"epoch {epoch}/{self.epochs}  loss {loss:.4f}  accuracy {shown}{rest}", file=sys.stderr, flush=True)
