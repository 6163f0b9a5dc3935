"""Train on several devices, or in another precision, by lightning-fabric; its import takes longer than a short run."""

from __future__ import annotations

import copy
import json
import logging
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning_fabric
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment, find_free_network_port
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.parallel import by_output

if TYPE_CHECKING:
    from fusionkit.experiment.ranks import Team

__all__ = ["Task", "distribute_tensor", "environment", "run"]

#: The tensors of a trained network, and its history in JSON types.
Outcome = tuple[dict[str, Tensor], Any]

Fit = Callable[[Any, nn.Module], Outcome]

_LOGGER = logging.getLogger(lightning_fabric.__name__)


def environment() -> Any:
    """Return what lightning-fabric knows of the processes that torchrun or SLURM started; None if neither did.

    Raises:
        ConfigError: SLURM's variables do not say how many processes each machine has.
    """
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            try:
                return kind()
            except RuntimeError as error:
                should = "srun should be given --ntasks-per-node, the number of processes on each machine"
                raise ConfigError(f"{should}; found --ntasks={os.environ['SLURM_NTASKS']} alone.") from error
    return None


class Task:
    """A training, for any of its processes.  Not a dataclass: lightning-fabric searches those, and refuses frozen ones.

    Args:
        fit: what each process calls with its Fabric and the network; can be pickled.
        network: to train.
        device: the first of each machine.
        settings: the recipe.
        unused: whether some parameters take no part in the loss, which DDP would refuse.
    """

    def __init__(
        self, fit: Fit, network: nn.Module, device: torch.device, settings: TrainOptions, unused: bool
    ) -> None:
        self.fit, self.network, self.device, self.settings, self.unused = fit, network, device, settings, unused

    def __call__(self, team: Team) -> Outcome:
        """Train in one of the processes that torchrun or SLURM started."""
        return self.run(team.environment, team.local_size, team.nodes)

    def run(self, environment: Any, devices: int, nodes: int = 1) -> Outcome:
        """Train in one of ``devices`` processes on each of ``nodes`` machines."""
        first, network = self.device.index or 0, self.network
        if devices * nodes > 1:  # New processes get it in memory that they share, and the first may need it unchanged.
            network = copy.deepcopy(network)
        with _quiet():
            fabric = Fabric(
                accelerator=self.device.type,
                devices=devices if self.device.type == "cpu" else list(range(first, first + devices)),
                num_nodes=nodes,
                strategy=self._strategy(devices * nodes),
                precision=self.settings.precision,
                plugins=[environment],
            )
            fabric.launch()
            return self.fit(fabric, network)

    def _strategy(self, processes: int) -> Any:
        """Return how the processes share the training of a network."""
        timeout = timedelta(seconds=self.settings.timeout)
        if processes == 1:
            return "auto"
        if self.settings.strategy == "fsdp":
            return ModelParallelStrategy(_sharded, processes, tensor_parallel_size=1, timeout=timeout)
        if self.settings.strategy == "by_output":
            return ModelParallelStrategy(_by_output, 1, tensor_parallel_size=processes, timeout=timeout)
        return DDPStrategy(timeout=timeout, find_unused_parameters=self.unused)


def _sharded(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Return the network with its parameters cut into rows, of which each process has some.

    Raises:
        FusionError: a parameter has no dimension, which ``fully_shard`` refuses.
    """
    if scalars := [name for name, parameter in network.named_parameters() if parameter.ndim == 0]:
        should = "train.strategy should be ddp for parameters without dimensions"
        raise FusionError(f"{should}; found fsdp and {', '.join(scalars)}.")
    fully_shard(network, mesh=mesh["data_parallel"])
    return network


def _by_output(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Return the network with the matrix W of its fusion cut into rows, of which each process has some."""
    shared = parallelize_module(network, mesh["tensor_parallel"], {"fusion": by_output()})
    return shared.to(mesh.device_type)  # Fabric leaves that to this function, and torch moves W only.


def run(task: Task, count: int) -> Outcome:
    """Train in ``count`` new processes of this machine; in this one if it is one.

    Raises:
        FusionError: of the training; processes that ended otherwise.
    """
    return task.run(LightningEnvironment(), 1) if count == 1 else _spawn(task, count)


def _spawn(task: Task, count: int) -> Outcome:
    """Train in ``count`` new processes.

    The outcome comes back through a file: an object larger than the buffer of a pipe would block a process for ever.
    """
    with tempfile.TemporaryDirectory(prefix="fusionkit-") as folder, _spawning():
        path = Path(folder) / "outcome.safetensors"
        before = multiprocessing.active_children()
        try:
            spawn(_spawned, (task, count, find_free_network_port(), path), count)
        except KeyboardInterrupt:  # The processes may not have received it, and Python would wait for them to end.
            for process in multiprocessing.active_children():
                if process not in before:
                    process.kill()
                    process.join()
            raise
        except (ProcessRaisedException, ProcessExitedException) as error:
            # The message is a whole traceback; its last line has the error.
            last = str(error).strip().splitlines()[-1]
            raise FusionError(f"The training processes should end without an error; found {last}") from error
        if not path.is_file():
            raise FusionError("The training processes should end with the trained model; found none.")
        with safe_open(path, framework="pt") as file:
            found = json.loads(file.metadata()["outcome"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    if found["error"] is not None:
        raise FusionError(found["error"])
    return state, found["value"]


def _spawned(rank: int, task: Task, count: int, port: int, path: Path) -> None:
    """Train in one of several new processes; the first writes the outcome to ``path``."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)  # Of a torchrun of one process: it does not know these.
    state: dict[str, Tensor] = {}
    found: dict[str, Any] = {"error": None, "value": None}
    try:
        state, found["value"] = task.run(LightningEnvironment(), count)
    except FusionError as error:  # In all processes at once, as the loss is reduced over them.
        found["error"] = str(error)
    if rank == 0:
        save_file({name: tensor.clone() for name, tensor in state.items()}, path, {"outcome": json.dumps(found)})
    # A process that exits with the group's threads still running can be aborted by the C++ runtime.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@contextmanager
def _spawning() -> Iterator[None]:
    """Let new processes start as fresh interpreters; restore the start method afterwards."""
    method = multiprocessing.get_start_method(allow_none=True)
    # A worker of joblib has its own start method, which the new processes do not know.
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(method, force=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lightning-fabric's notes about devices and precision off the screen."""
    level = _LOGGER.level
    _LOGGER.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning_fabric")
            yield
    finally:
        _LOGGER.setLevel(level)
