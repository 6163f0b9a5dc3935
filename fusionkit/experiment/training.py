"""The training loop: shuffled batches of data that stay on the device.

The validation part, or without one the test part, is measured after every epoch.  The model is that of the best epoch
on the validation part; without one it is that of the last epoch, and the test part only shows the learning curve.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fusionkit import registry
from fusionkit._util.machine import cpu_count
from fusionkit._util.progress import ProgressBar
from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import ranks
from fusionkit.experiment.checkpoint import Checkpoint, Checkpoints, random_states, set_random_states
from fusionkit.experiment.metrics import numeral, rank_value
from fusionkit.experiment.model import Network
from fusionkit.experiment.optimizer import Optimizer, one_cycle
from fusionkit.experiment.parts import Batch, Batches, Part, Share, batch_sizes
from fusionkit.experiment.source import Array
from fusionkit.experiment.state import exclusive
from fusionkit.experiment.tasks.base import Task
from fusionkit.experiment.view_dropout import ViewDropout
from fusionkit.fabrications.dense import Dense
from fusionkit.fabrications.lowrank import LowRank
from fusionkit.fusion import Fusion, check_device
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Below this number of multiply-adds per step, several threads cost more than they gain; on a busy machine much more,
#: because each of thousands of small kernels waits for the slowest thread.
_SERIAL_WORK = 2**26

#: What computes with the numbers of the whole batch, and refuses one of a single row.
_OF_BATCHES = (nn.BatchNorm1d, nn.SyncBatchNorm)

#: Without a terminal, a line shows the progress after this number of seconds.
_SILENCE = 30.0


@dataclass
class History:
    """Learning curves, one value per epoch.

    Attributes:
        loss: the mean training loss, with the loss of the fusion's ``explain`` if it has one.
        score: the metric on the part that is shown; [] without one, None where it is undefined.
        lr: the learning rate at the end of the epoch.
        best_epoch: the epoch of the model, counted from 1.
    """

    loss: list[float] = field(default_factory=list)
    score: list[float | None] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    best_epoch: int = 0


@dataclass
class _Process:
    """The only process, on one device: the part of ``Fabric`` that the training uses, without its import."""

    device: torch.device
    world_size, global_rank, is_global_zero = 1, 0, True

    def setup_module(self, network: nn.Module) -> nn.Module:
        """Return the network, moved to the device."""
        return network.to(self.device)

    @property
    def strategy(self) -> _Process:
        """What does the steps of the optimizer."""
        return self

    def optimizer_step(self, optimizer: Optimizer) -> None:
        """Update the parameters."""
        optimizer.step()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of ``loss``."""
        loss.backward()

    def all_reduce(self, value: Tensor, reduce_op: str) -> Tensor:
        """Return ``value`` (), reduced over the processes."""
        return value


@dataclass
class Monitored:
    """A part that is measured after every epoch.

    Attributes:
        part: standardized.
        target: its targets, in their units.
        metric: the name of the metric.
        chooses: whether the model of the best epoch is kept: it is the validation part.
    """

    part: Part
    target: Array
    metric: str
    chooses: bool = False


@dataclass
class Training:
    """What to train a network on, and how; every process of the training gets it.

    Attributes:
        task: fitted to the training part.
        part: the standardized training part.
        target: its targets, in their units.
        monitored: the validation part, or the test part; without it the history has no scores.
        settings: the recipe.
        seed: of the order of the batches and of dropout; the caller's random state does not change.
        progress: printed on stderr before the first epoch, above a progress bar; None shows neither.
        report: called after each epoch with the fraction of the training that is done, in the first process.
        stop: the number of epochs after which the training ends, with the schedule of all ``settings.epochs``.
        checkpoints: to write, and the one to go on from.
    """

    task: Task
    part: Batches
    target: Array
    monitored: Monitored | None
    settings: TrainOptions
    seed: int
    progress: str | None = None
    report: Callable[[float], None] | None = None
    stop: int | None = None
    checkpoints: Checkpoints | None = None


@exclusive()
def train(network: nn.Module, training: Training, device: Any) -> History:
    """Train ``network`` in place; it ends on the CPU, in evaluation mode.

    Args:
        network: takes standardized views (b, n_i), returns the outputs of the task, (b, c).
        training: the data and the recipe.
        device: where to train.

    Raises:
        ConfigError: a precision or a number of devices that the device does not have; a loss that does not fit; a
            fusion that train.strategy=by_output cannot share out.
        FusionError: a device that does not exist; a loss that is NaN or infinite, with its epoch; a checkpoint of
            another training.
    """
    settings, first = training.settings, check_device(device) or torch.device("cpu")
    if settings.strategy == "by_output":
        _check_shareable(network)
    count = _processes(first, settings)
    # Without a head there may be nothing to train: the model is only measured.
    if (count == 1 and settings.precision == "32-true") or not _trainable(network):
        state, history = _fit(_Process(first), network, training)
    else:
        devices = ranks.devices()
        fit, unused = partial(_fit, training=training), _has_unused_parameters(network, training)
        task, team = devices.Task(fit, network, first, settings, unused), ranks.team()
        state, history = devices.run(task, count) if team is None else team.call(task)
    network.load_state_dict(state)
    network.cpu().eval()
    return History(**history)


def _check_shareable(network: nn.Module) -> None:
    """Refuse a network whose W cannot be shared out, in one process too: the same command is meant for several."""
    fusion = getattr(network, "fusion", None)
    if isinstance(fusion, ParameterizedConcatenation) and type(fusion.fabrication) in (Dense, LowRank):
        return
    found = fusion.name if isinstance(fusion, Fusion) else type(network).__name__
    if isinstance(fusion, ParameterizedConcatenation):
        kind = type(fusion.fabrication)
        found += f" with {registry.key_of(kind) or kind.__name__}"
    should = "train.strategy should be by_output for parameterized_concatenation with dense or lowrank only"
    raise ConfigError(f"{should}; found it for {found}.  fsdp shares out any parameters.")


def _fill(tensor: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor, or the part of it that this process has."""
    if (mesh := getattr(tensor, "device_mesh", None)) is not None:
        placements = tensor.placements  # type: ignore[attr-defined]
        whole = ranks.devices().distribute_tensor(whole, mesh, placements, src_data_rank=None)
    tensor.copy_(whole)


def _trainable(network: nn.Module) -> list[Tensor]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _has_unused_parameters(network: nn.Module, training: Training) -> bool:
    """Whether the fusion has parameters for absent views, by its option ``missing``, and no view is ever absent."""
    complete = training.part.mask is None and not training.settings.view_dropout
    part = network.fusion.stand_in if isinstance(network, Network) else None
    return complete and part is not None and any(parameter.requires_grad for parameter in part.parameters())


def _processes(device: torch.device, settings: TrainOptions) -> int:
    """Return the number of processes of the training.

    Raises:
        ConfigError: the machine does not have them, or not this precision.
    """
    if device.type == "meta":
        raise ConfigError("device should be one that computes, such as cpu or cuda; found 'meta'.")
    if settings.strategy in ("fsdp", "by_output") and settings.precision in ("16-mixed", "64-true"):
        should = "train.precision should be 32-true, bf16-mixed, bf16-true or 16-true"
        raise ConfigError(f"{should} with train.strategy={settings.strategy}; found {settings.precision!r}.")
    if device.type == "cpu":
        if settings.precision == "16-mixed":
            raise ConfigError("train.precision should be bf16-mixed or a true precision on the cpu; found '16-mixed'.")
        own, available, where = cpu_count(), max(os.cpu_count() or 1, 8), "this machine"
    else:
        own = available = int(torch.get_device_module(device.type).device_count()) - (device.index or 0)
        where = f"this machine, counted from {device}"
    if (team := ranks.team()) is not None:
        if device.type != "cpu" and team.local_size > available:
            should = f"The launcher should start at most {available} processes on {where}"
            raise ConfigError(f"{should}; found {team.local_size}.")
        return int(team.size)
    count = own if settings.devices == "auto" else settings.devices
    if count > available:
        raise ConfigError(f"train.devices should be at most {available} on {where}; found {count}.")
    return count


def _fit(
    process: _Process | Fabric, network: nn.Module, training: Training
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train in this process, one of ``process.world_size``; return the tensors, and the history in JSON types."""
    with threads(network, training.settings, process.device):
        history, state = _epochs(process, network, training)
    return {name: _whole(tensor).cpu() for name, tensor in (state or network.state_dict()).items()}, asdict(history)


def _whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts that other processes have, which all call this; a common one as it is."""
    whole: Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return whole


def _epochs(process: Any, network: nn.Module, training: Training) -> tuple[History, dict[str, Tensor] | None]:
    """Return the history, and the tensors of the best epoch; None for those of the last one."""
    settings, first = training.settings, process.is_global_zero
    last = training.stop or settings.epochs
    state = _State(process, network, training)
    steps, best, history = state.steps, state.best, state.history
    # A Network draws the same dropout in all processes, then takes the rows of its own.
    seed = training.seed + (0 if isinstance(network, Network) else steps.own.rank)
    # Seeded last, because modules imported on the way here may draw numbers.
    shown = _Display(last, best.metric, training.progress if first else None, begin=state.begin)
    with shown as display, seeded(seed, process.device):
        state.restore(last)
        for epoch in range(state.begin + 1, last + 1):
            if best.waited(epoch - 1):
                break
            loss = steps.epoch()
            if not math.isfinite(loss):
                hint = f"A smaller train.lr than {settings.lr:g} may help."
                where = f"epoch {epoch} of {settings.epochs}"
                raise FusionError(f"The training loss should be finite; found {loss} in {where}. {hint}")
            score = best.measure(epoch, steps.model, network)
            history.loss.append(loss)
            history.score += [] if training.monitored is None else [score]
            history.lr.append(steps.optimizer.lr)
            display.ended(epoch, loss, score)
            state.save(epoch)
            if training.report is not None and first:
                training.report(epoch / last)
    history.best_epoch = best.epoch or len(history.loss)
    return history, best.state


class _State:
    """All that an epoch changes in a process: written to checkpoints, and restored from one.

    Attributes:
        begin: the epoch after which the training goes on; 0 at its beginning.
    """

    def __init__(self, process: Any, network: nn.Module, training: Training) -> None:
        self.process, self.network, self.checkpoints = process, network, training.checkpoints
        self.steps, self.best = _Steps(process, network, training), _Best(training, process)
        self.history = History()
        self.found = None if self.checkpoints is None else self.checkpoints.found
        self.begin = 0 if self.found is None else self.found.epoch

    def save(self, epoch: int) -> None:
        """Write a checkpoint if one is due."""
        if self.checkpoints is None or not self.checkpoints.due(epoch):
            return
        first = self.process.is_global_zero
        tensors = {}
        for name, tensor in self._collected().items():  # In all processes, each of which has a part.
            whole = _whole(tensor)
            if first:
                tensors[name] = whole.cpu()
        if first:
            best = self.best
            value = best.value if best.epoch else None
            state = {"history": asdict(self.history), "best_epoch": best.epoch, "best_value": value}
            self.checkpoints.save(epoch, tensors, **state, gradient_scaler=self._precision_state())

    @torch.no_grad()
    def restore(self, last: int) -> None:
        """Go to where the checkpoint was written, if there is one; ``last`` is the last epoch of the training.

        Raises:
            FusionError: it is not of this training.
        """
        if self.found is None:
            return
        found = self.found.for_processes(self.process.world_size)
        self._check(found, last)
        facts, steps, best = found.facts, self.steps, self.best
        steps.optimizer.allocate(_part(found.tensors, "optimizer"))
        best.epoch, best.value = facts.best_epoch, -math.inf if facts.best_value is None else facts.best_value
        best.state = _copied(self.network) if best.epoch else None
        own = self._collected()
        found.check(own)
        for name, tensor in own.items():
            _fill(tensor, found.tensors[name])
        try:
            steps.generator.set_state(own["order"])
            steps.drops.set_state(own["drops"])
            mine = {name: states[self.process.global_rank] for name, states in _part(own, "random").items()}
            set_random_states(mine, self._device)
        except (ValueError, RuntimeError) as error:
            found.refuse("states of random generators", error)
        curves = facts.history
        for name in ("loss", "score", "lr"):
            getattr(self.history, name).extend(getattr(curves, name))
        steps.done = self.begin * len(steps.sizes)
        steps.schedule()
        if facts.gradient_scaler:
            self.process.strategy.precision.load_state_dict(facts.gradient_scaler)

    @property
    def _device(self) -> torch.device:
        return self.process.device  # type: ignore[no-any-return]

    def _collected(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint by name; those of the network and of the optimizer are not copies."""
        parts = {"network": _tensors(self.network), "best": self.best.state or {}}
        parts["optimizer"] = self.steps.optimizer.tensors()
        parts["random"] = {name: self._gathered(state) for name, state in random_states(self._device).items()}
        found = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        found |= {"order": self.steps.generator.get_state(), "drops": self.steps.drops.get_state()}
        if sparse := [name for name, tensor in found.items() if tensor.layout != torch.strided]:
            should = "train.checkpoint_every should be null where tensors are sparse"
            raise FusionError(f"{should}; found the sparse {', '.join(sparse)}.")
        return found

    def _gathered(self, state: Tensor) -> Tensor:
        """Return the states (processes, ...) of one generator in all processes."""
        if self.process.world_size == 1:
            return state[None]
        return self.process.all_gather(state.to(self._device)).cpu()  # type: ignore[no-any-return]

    def _precision_state(self) -> dict[str, Any]:
        """Return the state of the gradient scaler; {} where there is none."""
        return {} if isinstance(self.process, _Process) else self.process.strategy.precision.state_dict()

    def _check(self, found: Checkpoint, last: int) -> None:
        """Compare what a checkpoint says with this training."""
        facts, monitored = found.facts, self.best.monitored
        lengths = [len(curve) for curve in (facts.history.loss, facts.history.score, facts.history.lr)]
        wanted = [self.begin, 0 if monitored is None else self.begin, self.begin]
        if lengths != wanted or not 1 <= self.begin <= last:
            found.refuse(f"curves of at most {last} epochs", f"the lengths {lengths}")
        most = self.begin if monitored is not None and monitored.chooses else 0
        if facts.best_epoch > most or (facts.best_epoch > 0) != (facts.best_value is not None):
            found.refuse(f"a best epoch of at most {most} and its value", f"{facts.best_epoch} and {facts.best_value}")
        scaler = self._precision_state()
        if facts.gradient_scaler.keys() != scaler.keys() or any(value < 0 for value in facts.gradient_scaler.values()):
            found.refuse(
                f"the gradient scaler's {', '.join(scaler) or 'no state'}", facts.gradient_scaler or "no state"
            )


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network by name, not copied."""
    return {name: value.detach() for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one part of a checkpoint, by their names in it."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


class _Best:
    """Measures the part that is shown, and keeps the tensors of the best epoch if that part chooses it."""

    def __init__(self, training: Training, process: Any) -> None:
        self.process, self.task, self.monitored = process, training.task, training.monitored
        self.patience = training.settings.patience
        self.metric = "" if self.monitored is None else self.monitored.metric
        self.part = None if self.monitored is None else self.monitored.part.to(process.device)
        self.epoch, self.value = 0, -math.inf
        self.state: dict[str, Tensor] | None = None

    def measure(self, epoch: int, model: nn.Module, network: nn.Module) -> float | None:
        """Return the metric after an epoch; None where it is undefined, or nothing is shown."""
        if self.monitored is None or self.part is None:
            return None
        score = self.task.score(self.metric, predictions(self.task, model, self.part), self.monitored.target)
        if self.monitored.chooses and (value := self._agreed(score)) > self.value:
            self.epoch, self.value = epoch, value
            self.state = _copied(network)
        return score

    def _agreed(self, score: float | None) -> float:
        """Return the value of a score, the same in all processes, so that they stop in the same epoch."""
        value = -math.inf if score is None else rank_value(self.metric, score)
        given = torch.tensor(value, dtype=torch.float64, device=self.process.device)
        return float(self.process.all_reduce(given, reduce_op="mean"))

    def waited(self, epoch: int) -> bool:
        """Whether the last ``patience`` epochs brought no better one; never where the metric is always undefined."""
        return self.patience is not None and self.epoch > 0 and epoch - self.epoch >= self.patience


class _Steps:
    """The optimizer steps of one process of a training."""

    def __init__(self, process: Any, network: nn.Module, training: Training) -> None:
        settings = self.settings = training.settings
        self.process, self.network = process, network
        self.training = training.part.to(process.device)
        self.has_loss = isinstance(network, Network) and network.has_loss()
        even = self.has_loss or any(isinstance(module, _OF_BATCHES) for module in network.modules())
        # With by_output each process computes some outputs for all rows of a batch.
        shared = settings.strategy == "by_output"
        self.own = Share(even=even) if shared else Share(process.global_rank, process.world_size, even)
        self.model = process.setup_module(network)
        self.trainable = _trainable(network)  # After the setup, which may have put others in their places.
        self.optimizer = Optimizer(self.trainable, settings.optimizer, settings.lr, settings.weight_decay)
        self.loss = training.task.criterion(settings, training.target)
        # The order is drawn on the CPU: the same on every device and in every process.  So are the views to drop, for
        # whole batches, by a generator of a seed that no order has.
        self.generator = torch.Generator().manual_seed(training.seed)
        self.drop, self.drops = ViewDropout(settings.view_dropout), torch.Generator().manual_seed(training.seed + 2**32)
        # Unless shares must be even, a process may have no row of a batch, so the batches are those of one process.
        self.sizes = batch_sizes(len(self.training), settings.batch_size, self.own.count if even else 1)
        self.done, self.total = 0, settings.epochs * len(self.sizes)
        self.schedule()

    def schedule(self) -> None:
        """Set learning rate and momentum of the next step."""
        if self.settings.scheduler == "onecycle":
            self.optimizer.lr, self.optimizer.momentum = one_cycle(self.done, self.total, self.settings.lr)

    def epoch(self) -> float:
        """Train on all rows once; return the mean loss."""
        m, process = len(self.training), self.process
        self.model.train()
        total = torch.zeros((), device=process.device)
        for batch in self.training.batches(self.sizes, self.generator, self.own):
            loss = self.batch_loss(batch)
            if self.trainable:
                self.optimizer.zero_grad()
                process.backward(loss)
                process.strategy.optimizer_step(self.optimizer)
            self.done += 1
            self.schedule()
            total += loss.detach() * (batch.size / m)
        return float(process.all_reduce(total, reduce_op="mean"))

    def batch_loss(self, batch: Batch) -> Tensor:
        """Return the loss of this process's share of a batch.

        Its mean over the processes is that of the whole batch, and so are the gradients.  A loss of the fusion counts
        for each process by its number of rows; their weights do not change it.
        """
        part = batch.part
        output = self.outputs(batch)
        output, own = output if self.has_loss else (output, None)
        scale = self.own.count / batch.size
        loss: Tensor = self.loss(output, part.target, part.weight) * scale
        return loss if own is None else loss + own * (len(part) * scale)

    def outputs(self, batch: Batch) -> Any:
        """Return the outputs of this process's share of a batch; where the fusion has a loss, a pair with that."""
        options: dict[str, Any] = _masked(self.present(batch))
        # A network of another class has no such arguments.
        options |= {"with_loss": True} if self.has_loss else {}
        if batch.rows is not None and isinstance(self.network, Network):
            options["drawn"] = (batch.size, batch.rows)
        return self.model(batch.part.views, **options)

    def present(self, batch: Batch) -> Tensor | None:
        """Return which views of the share are present and not dropped, (r, k); None: all of them."""
        if batch.mask is None and not self.settings.view_dropout:
            return None
        mask = batch.mask
        if mask is None:
            target = batch.part.target
            mask = torch.ones((batch.size, len(batch.part.views)), dtype=torch.bool, device=target.device)
        kept: Tensor = self.drop(mask, self.drops)
        return kept if batch.rows is None else kept[batch.rows]


@torch.no_grad()
def predictions(task: Task, model: nn.Module, part: Part) -> Array:
    """Return what the task predicts for a part, (m, c); the model is put into evaluation mode."""
    model.eval()
    return task.predicted(task.in_units(model(part.views, **_masked(part.mask)).cpu().double()))


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
    """Loss, score and the time left: a bar on a terminal, elsewhere a line now and then.

    Args:
        epochs: of the training.
        metric: the name of the scores.
        title: printed before the first epoch; None shows nothing at all.
        clock: returns the time in seconds.
        begin: the number of epochs that were trained before.
    """

    def __init__(
        self, epochs: int, metric: str, title: str | None, clock: Callable[[], float] = time.monotonic, begin: int = 0
    ) -> None:
        super().__init__(epochs, shown=title is not None, interval=_SILENCE, clock=clock)
        self.epochs, self.metric, self.begin, self.begun = epochs, metric, begin, clock()
        if title:
            print(title, file=sys.stderr, flush=True)
        self.update(begin, f"epoch {begin}/{epochs}")

    def ended(self, epoch: int, loss: float, score: float | None) -> None:
        """Show the state after ``epoch``: as a line, the first epoch, each fifth of all, and one in 30 seconds."""
        left = (self.clock() - self.begun) / (epoch - self.begin) * (self.epochs - epoch)
        measured = f"  {self.metric} {numeral(self.metric, score)}" if self.metric else ""
        after = f"loss {loss:.4f}{measured}" + (f"  {left:.0f} s left" if left >= 1 else "")
        fifth = epoch * 5 // self.epochs > (epoch - 1) * 5 // self.epochs
        self.update(epoch, f"epoch {epoch}/{self.epochs}", after, now=epoch == self.begin + 1 or fifth)
