"""Train on several devices, or in another precision, by lightning-fabric; its import takes longer than a short run."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning_fabric
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from fusionkit.errors import FusionError

#: The tensors of a trained network, and its history in JSON types.
Outcome = tuple[dict[str, Tensor], Any]

Fit = Callable[[Any, nn.Module], Outcome]

_LOGGER = logging.getLogger(lightning_fabric.__name__)


def run(
    fit: Fit, network: nn.Module, device: torch.device, devices: int, precision: Any, *, unused: bool = False
) -> Outcome:
    """Return ``fit(fabric, network)``, from one process per device, by ``ddp_spawn`` if there are several.

    Args:
        fit: can be pickled.
        network: to train.
        device: the first.
        devices: their number.
        precision: as lightning-fabric names it.
        unused: whether some parameters take no part in the loss, which DDP would refuse.

    Raises:
        FusionError: of ``fit``; processes that ended otherwise.
    """
    first = device.index or 0
    strategy = DDPStrategy(start_method="spawn", find_unused_parameters=unused) if devices > 1 else "auto"
    with _quiet():
        fabric = Fabric(
            accelerator=device.type,
            devices=devices if device.type == "cpu" else list(range(first, first + devices)),
            strategy=strategy,
            precision=precision,
        )
        return fit(fabric, network) if devices == 1 else _spawn(fabric, fit, network)


class _Fit:
    """A function for a new process.  Not a dataclass: lightning-fabric searches those, and refuses frozen ones."""

    def __init__(self, function: Fit) -> None:
        self.function = function

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The first code that a new process runs: lightning-fabric would log a line for each process.
        _LOGGER.setLevel(logging.WARNING)
        self.__dict__.update(state)


def _spawn(fabric: Fabric, fit: Fit, network: nn.Module) -> Outcome:
    """Run ``fit`` in ``fabric.world_size`` new processes.

    The outcome comes back through a file, because the queue of lightning-fabric is read only after the processes have
    ended: a tensor in it is lost with its process, and an object larger than the buffer of a pipe blocks for ever.
    """
    with tempfile.TemporaryDirectory(prefix="fusionkit-") as folder, _spawning():
        path = Path(folder) / "outcome.safetensors"
        before = multiprocessing.active_children()
        try:
            fabric.launch(_spawned, _Fit(fit), network, path)  # type: ignore[arg-type]
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


def _spawned(fabric: Fabric, fit: _Fit, network: nn.Module, path: Path) -> None:
    """Run ``fit`` in one of several processes; the first writes the outcome to ``path``."""
    state: dict[str, Tensor] = {}
    found: dict[str, Any] = {"error": None, "value": None}
    with _quiet():
        try:
            state, found["value"] = fit.function(fabric, network)
        except FusionError as error:  # In all processes at once, as the loss is reduced over them.
            found["error"] = str(error)
    if fabric.is_global_zero:
        save_file({name: tensor.clone() for name, tensor in state.items()}, path, {"outcome": json.dumps(found)})
    # A process that exits with the group's threads still running can be aborted by the C++ runtime.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@contextmanager
def _spawning() -> Iterator[None]:
    """Let new processes start as fresh interpreters; restore the start method and the environment afterwards."""
    names = "MASTER_PORT", "MASTER_ADDR"  # Lightning-fabric sets them.
    before = {name: os.environ[name] for name in names if name in os.environ}
    method = multiprocessing.get_start_method(allow_none=True)
    # A worker of joblib has its own start method, which the new processes do not know.
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(method, force=True)
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


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
