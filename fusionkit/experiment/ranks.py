"""The processes that torchrun or SLURM started for one run: the first one runs it, and the others help it.

The first process, rank 0, composes, reads, writes and prints.  The others get from it the functions that all processes
call at the same time, such as the training; they print nothing.

All end together.  The store that torch.distributed uses to connect processes tells the others to stop: a thread of each
looks there every half second, because a process that waits for a lost one cannot be reached in another way.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from fusionkit._util.machine import launched_rank
from fusionkit._util.text import error_line, error_message
from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError, FusionError, RegistryError

T = TypeVar("T")

#: Seconds in which all processes have to start.
_START = 600
#: Seconds of one try to reach the store.
_TRY = 5
#: Seconds between two looks into the store.
_LOOK = 0.5
#: Seconds in which the other processes have to answer the first one.
_ANSWER = 5.0


class Team:
    """The processes of a run, seen from one of them.

    Attributes:
        environment: of lightning-fabric.
        rank: the number of this process.
        size: the number of all.
        local_size: the number of those on this machine.
        nodes: the number of machines.
        even: whether each has as many processes.
    """

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.rank, self.size = environment.global_rank(), environment.world_size()
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        self._store, self._timeout, self._ended = _store(self.rank, self.size), 0.0, threading.Event()
        nodes = Counter(self._meet(str(environment.node_rank())))
        self.local_size, self.nodes = nodes[str(environment.node_rank())], len(nodes)
        self.even = len(set(nodes.values())) == 1

    def _meet(self, word: str) -> list[str]:
        """Wait until all processes are there, and return the word of each."""
        keys = [f"fusionkit/word/{rank}" for rank in range(self.size)]
        should = f"All {self.size} processes should start within {_START} seconds"
        end = time.monotonic() + _START
        try:
            self._store.set(keys[self.rank], word)
            while not self._store.check(keys):  # Not the store's own waiting, which no signal ends.
                if time.monotonic() > end:
                    raise FusionError(f"{should}; found one that did not.")
                time.sleep(_LOOK / 10)
        except RuntimeError as error:
            raise FusionError(f"{should}; found {error_line(error)}") from error
        return [self._store.get(key).decode() for key in keys]

    # -- in the first process ------------------------------------------------------------------------------------------

    def connect(self, settings: TrainOptions, device: str) -> None:
        """Connect all processes with each other, once."""
        if not distributed.is_initialized() and not self._ended.is_set():
            self._store.set("fusionkit/begin", json.dumps({"timeout": settings.timeout, "device": device}))
            self._connect(settings.timeout, torch.device(device))

    def call(self, function: Callable[[Team], T]) -> T:
        """Call a function, which can be pickled, in all processes; return what it returns in this one.

        Raises:
            FusionError: a process was lost, did not answer, or failed.
        """
        try:
            distributed.broadcast_object_list([function], src=0)
            return function(self)
        except BaseException as error:
            _ignore_termination()
            lost = isinstance(error, KeyboardInterrupt) or _disconnected(error)
            if not lost or (cause := self._cause(error)) is None:
                raise
            raise cause from None

    def release(self) -> None:
        """Let the other processes end: they are not needed any more."""
        if self._ended.is_set():
            return
        if distributed.is_initialized():
            self.call(_end)
        else:
            self._store.set("fusionkit/begin", "null")
        self._ended.set()

    def stop(self) -> list[int]:
        """Let the other processes end at once; return those that do not answer."""
        _ignore_termination()
        silent = [] if self._ended.is_set() else list(range(1, self.size))
        self._ended.set()
        with contextlib.suppress(RuntimeError):  # The store is gone, and with it the launcher.
            self._store.set("fusionkit/stop", "")
            end = time.monotonic() + _ANSWER
            while silent and time.monotonic() < end:
                silent = [rank for rank in silent if not self._store.check([f"fusionkit/stopped/{rank}"])]
                time.sleep(_LOOK / 10)
        return silent

    def _cause(self, error: BaseException) -> FusionError | None:
        """Return why the processes lost each other; None: this one was interrupted."""
        silent = self.stop()
        should = f"All {self.size} processes should train to the end"
        with contextlib.suppress(RuntimeError):
            if self._store.check(["fusionkit/failed"]):
                found = json.loads(self._store.get("fusionkit/failed"))
                cause = FusionError(f"{should}; found in rank {found['rank']}: {found['error']}")
                cause.add_note(found["traceback"])
                return cause
        if silent:
            ranks = f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}"
            return FusionError(f"{should}; found {ranks} lost.")
        if isinstance(error, KeyboardInterrupt):
            return None
        should = f"All {self.size} processes should answer within train.timeout={self._timeout:g} seconds"
        return FusionError(f"{should}; found {error_line(error)}")

    # -- in the others -------------------------------------------------------------------------------------------------

    def follow(self) -> int:
        """Call the functions of the first process until it ends; return the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # As nohup sets it.
                signal.signal(number, self._interrupted)
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
                self._followed()
            return 0
        except Exception as error:
            if _disconnected(error):
                return self._left()
            self._failed(error)
            raise SystemExit(1) from error
        finally:
            self._ended.set()

    def _followed(self) -> None:
        while not self._store.check(["fusionkit/begin"]):
            time.sleep(_LOOK / 10)
        begin = json.loads(self._store.get("fusionkit/begin"))
        if begin is None:
            return
        self._connect(begin["timeout"], torch.device(begin["device"]))
        while distributed.is_initialized():
            functions: list[Any] = [None]
            distributed.broadcast_object_list(functions, src=0)
            functions[0](self)
        self._ended.set()

    def _interrupted(self, number: int, frame: object) -> None:
        """Go on: the first process usually gets the same signal and says "stop".  End this one if it does not."""

        def leave() -> None:
            if not self._ended.wait(_ANSWER):
                self._failed(FusionError(f"an end by {signal.Signals(number).name}"))
                os._exit(1)

        threading.Thread(target=leave, daemon=True).start()

    def _left(self) -> int:
        """Wait for the first process to say "stop", which ends this one; say that it is gone if it does not."""
        _ignore_termination()
        time.sleep(_ANSWER)
        self._orphaned()
        return 1

    def _failed(self, error: Exception) -> None:
        """Tell the first process why this one ends."""
        users = isinstance(error, FusionError | ConfigError | RegistryError)
        what = error_message(error) if users else error_line(error, limit=None)
        found = {"rank": self.rank, "error": what, "traceback": "".join(traceback.format_exception(error))}
        with contextlib.suppress(RuntimeError):
            self._store.compare_set("fusionkit/failed", "", json.dumps(found))
            self._store.set(f"fusionkit/stopped/{self.rank}", "")

    def _watch(self) -> None:
        """End this process when the first one says so, or is gone with its store."""
        while not self._ended.wait(_LOOK):
            try:
                if self._store.check(["fusionkit/stop"]):
                    self._store.set(f"fusionkit/stopped/{self.rank}", "")
                    os._exit(1)
            except RuntimeError:
                if not self._ended.wait(_ANSWER):
                    self._orphaned()
                    os._exit(1)

    def _orphaned(self) -> None:
        """Say, once on each machine, that there will be no result."""
        if self.environment.local_rank() == (1 if self.environment.node_rank() == 0 else 0):
            print("error: Rank 0, which writes the result, should stay to the end; found it lost.", file=sys.__stderr__)

    def _connect(self, timeout: float, device: torch.device) -> None:
        """Let all processes connect with each other."""
        self._timeout = timeout
        own = distributed.get_default_backend_for_device(device)
        # What is sent by pickle goes from CPU to CPU.
        backend = own if device.type == "cpu" else f"cpu:gloo,{device.type}:{own}"
        group = {"rank": self.rank, "world_size": self.size, "timeout": timedelta(seconds=timeout)}
        distributed.init_process_group(backend, store=self._store, **group)


def _end(team: Team) -> None:
    """End the connections of a process."""
    distributed.destroy_process_group()


@dataclass(frozen=True)
class _Gathered:
    """Calls a function with the rank and the number of processes in each; the first gets all results."""

    function: Callable[[int, int], Any]

    def __call__(self, team: Team) -> list[Any]:
        found = [None] * team.size
        distributed.gather_object(self.function(team.rank, team.size), found if team.rank == 0 else None)
        return found


def _store(rank: int, size: int) -> Any:
    """Return the store in which the processes find each other, as MASTER_ADDR and MASTER_PORT say."""
    host, port, end = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), time.monotonic() + _START
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # Otherwise torchrun has it.
    while True:
        try:  # For a short time only, because no signal ends it.
            timeout = timedelta(seconds=_START if serves else _TRY)
            store = distributed.TCPStore(  # type: ignore[attr-defined]
                host, port, size, is_master=serves, timeout=timeout, wait_for_workers=False
            )
        except RuntimeError as error:
            if serves or time.monotonic() > end:
                should = f"The first process should be reachable at {host}:{port}"
                raise FusionError(f"{should}; found {error_line(error)}") from error
        else:
            store.set_timeout(timedelta(seconds=_START))
            return store


def _ignore_termination() -> None:
    """Ignore SIGTERM, which torchrun sends to all processes when one has ended: what happened is still to be told."""
    with contextlib.suppress(ValueError):  # In another thread.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _disconnected(error: BaseException) -> bool:
    """Whether an error of a collective function says that another process is gone, or silent."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


_team: Team | None = None


def team() -> Team | None:
    """Return the processes that were started for this run; None: it is the only one, or starts others itself."""
    return _team


def connect(settings: TrainOptions, device: str) -> None:
    """Connect the processes that were started for this run, if there are others."""
    if _team is not None:
        _team.connect(settings, device)


def gathered(function: Callable[[int, int], T]) -> list[T]:
    """Return what a function of the rank and the number of processes, which can be pickled, returns in each."""
    return [function(0, 1)] if _team is None else _team.call(_Gathered(function))


def release() -> None:
    """Let the other processes end, if there are some: the training is done."""
    if _team is not None:
        _team.release()


def check(settings: TrainOptions) -> None:
    """Compare the options with the processes that were started.

    Raises:
        ConfigError: they do not fit.
    """
    if _team is None:
        if settings.num_nodes > 1:
            command = f"torchrun --nnodes {settings.num_nodes} ... -m fusionkit run ..."
            advice = f"Start the run by {command} on each machine, or by srun."
            raise ConfigError(f"train.num_nodes should be 1 in a plain run; found {settings.num_nodes}.  {advice}")
        return
    for key, given, here in (
        ("devices", settings.devices, _team.local_size),
        ("num_nodes", settings.num_nodes, _team.nodes),
    ):
        if given not in (1, "auto", here):
            should = f"train.{key} should be {here}, as the processes were started, or not be given"
            raise ConfigError(f"{should}; found {given}.")


@contextmanager
def joined() -> Iterator[Team | None]:
    """Join the processes that torchrun or SLURM has started; in the first one, let all end with the body.

    Yields:
        None, if there are no others.

    Raises:
        FusionError: they do not find each other.
        ConfigError: machines with different numbers of processes.
    """
    global _team
    environment = launcher()
    if environment is None or environment.world_size() == 1:
        yield None
        return
    _team = found = Team(environment)
    try:
        if found.rank == 0 and not found.even:
            raise ConfigError("The launcher should start as many processes on each machine; found different numbers.")
        yield found
    except BaseException:
        if found.rank == 0:
            found.stop()
        raise
    else:
        if found.rank == 0:
            found.release()
    finally:
        _team = None


def launcher() -> Any:
    """Return lightning-fabric's environment of torchrun or SLURM; None if neither has started this process.

    Raises:
        ConfigError: SLURM's does not say how many processes each machine has.
    """
    return None if launched_rank() is None else devices().environment()


def devices() -> Any:
    """Return the module that uses lightning-fabric, whose import takes longer than a short run."""
    from fusionkit.experiment import devices

    return devices
