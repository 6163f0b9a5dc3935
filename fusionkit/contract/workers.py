"""Run functions in other processes: in forks of this one, or in forks of a fresh interpreter.

If a process exits, crashes or stops sending messages, its task is lost and the other tasks go on.  Output of these
processes to the standard streams is discarded.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from time import monotonic
from typing import Any, Literal

import torch

from fusionkit.contract import probes  # noqa: F401  Loads all of fusionkit in a fresh interpreter.
from fusionkit.contract.guard import PATIENCE
from fusionkit.contract.rules import describe, outcome
from fusionkit.errors import ConfigError, FusionError, RegistryError

Method = Literal["fork", "spawn"]
#: A function of a task that yields messages.
Function = Callable[[Any], Iterator[Any]]

#: Seconds between checks that a process is alive; a closed pipe is not enough, because a child may keep it open.
POLL_INTERVAL = 0.5
#: Seconds to wait for the end of a process that closed its pipe.
EXIT_TIMEOUT = 1.0

#: The workers of this process that have not been ended.
_alive: set[_Worker] = set()
#: Serves the calls of ``fresh``, one at a time.
_interpreter: _Worker | None = None
_lock = threading.RLock()


class RemoteError(RuntimeError):
    """A call of ``fresh`` failed: the exception of the function in one line, or that its process ended."""


@dataclass(frozen=True)
class Finished:
    """The function has returned."""


@dataclass(frozen=True)
class Lost:
    """The process ended before the function returned.

    Attributes:
        how: ``exit status 3``, or the name of the signal.
        timed_out: whether it was killed because it sent no message for too long.
    """

    how: str
    timed_out: bool = False


def can_fork() -> bool:
    """Whether a fork of this process works: not once CUDA is in use, nor with the frameworks of macOS."""
    return hasattr(os, "fork") and sys.platform != "darwin" and not torch.cuda.is_initialized()


def run(
    function: Function, tasks: deque[Any], *, jobs: int = 1, timeout: float = math.inf, method: Method = "fork"
) -> Iterator[tuple[Any, Any]]:
    """Run a function on tasks in worker processes.

    Args:
        function: yields messages for one task.  Tasks and messages are pickled, and with ``spawn`` the function too.
        tasks: taken from the left; the caller may add tasks during the iteration.
        jobs: the maximum number of worker processes.
        timeout: seconds of processor time without a message after which a process is killed.  One that waits is
            killed after ``PATIENCE`` times as many seconds on the clock, as is any where that time is unknown.
        method: how the processes start.

    Yields:
        a task and one of its messages, in order of arrival; the last of each task is ``Finished`` or ``Lost``.

    Raises:
        Exception: the function raised it; see ``_send_all``.
    """
    workers: list[_Worker] = []
    try:
        while tasks or any(worker.busy for worker in workers):
            _distribute(function, tasks, workers, jobs, method)
            busy = [worker for worker in workers if worker.busy]
            wait([worker.connection for worker in busy], POLL_INTERVAL)
            for worker in busy:
                for message in worker.receive(timeout):
                    if isinstance(message, Lost):
                        workers.remove(worker)
                    yield worker.task, message
    finally:
        for worker in workers:
            worker.end()


def _distribute(function: Function, tasks: deque[Any], workers: list[_Worker], jobs: int, method: Method) -> None:
    idle = [worker for worker in workers if not worker.busy]
    while tasks and (idle or len(workers) < jobs):
        if not idle:
            idle.append(_Worker(function, method))
            workers.append(idle[-1])
        idle.pop().begin(tasks.popleft())


class _Worker:
    """A process that runs a function on one task after the other, and sends what it yields.

    Attributes:
        task: the current task, or the last one.
        busy: whether the task is unfinished.
    """

    def __init__(self, function: Function, method: Method) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self.task: Any = None
        self.busy = False
        inherited = (self.connection, list(warnings.filters)) if method == "fork" else None
        context: Any = multiprocessing.get_context(method)
        self._process = context.Process(target=_serve, args=(theirs, inherited, function))
        # Python warns about forking a process with threads; the child uses none of the parent's threads.
        with warnings.catch_warnings(action="ignore") if method == "fork" else _without_main():
            self._process.start()
        self._last_message = self._clocks()
        theirs.close()
        _alive.add(self)

    def begin(self, task: Any) -> None:
        """Send the task to the process; ``receive`` reports if that is lost."""
        self.task, self.busy, self._last_message = task, True, self._clocks()
        with contextlib.suppress(OSError):
            self.connection.send(task)

    def receive(self, timeout: float) -> list[Any]:
        """Return the next message, or none if none has come yet; ``Lost`` if the process has ended or timed out.

        Raises:
            Exception: the function raised it; see ``_send_all``.
        """
        alive = self._process.is_alive()  # Before poll(), so that the last messages of a process are read.
        used, passed = (now - then for now, then in zip(self._clocks(), self._last_message, strict=True))
        timed_out = used > timeout or passed > PATIENCE * timeout
        with contextlib.suppress(EOFError, OSError):
            if self.connection.poll():
                message = self.connection.recv()
                self.busy, self._last_message = not isinstance(message, Finished | Exception), self._clocks()
                if isinstance(message, Exception):
                    raise message
                return [message]
            if alive and not timed_out:
                return []
        if not timed_out:
            self._process.join(EXIT_TIMEOUT)
        self.end()
        return [Lost(_ending(self._process.exitcode or 0), timed_out)]

    def _clocks(self) -> tuple[float, float]:
        """Return the seconds of processor time of the process, 0 where that is unknown, and those on the clock."""
        used = 0.0
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # The process has ended.
                used = time.clock_gettime(~(self._process.pid or 0) << 3 | 2)  # What clock_getcpuclockid returns.
        return used, monotonic()

    def end(self) -> None:
        """Kill the process."""
        self.busy = False
        _alive.discard(self)
        self.connection.close()
        self._process.kill()
        self._process.join()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name} ({signal.strsignal(-code)})"
    return f"signal {-code}"


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module of the program, as ``multiprocessing`` would run its file in the new interpreter."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection, inherited: tuple[Connection, list[Any]] | None, function: Function) -> None:
    """Run the function on every task that arrives; this is the main function of a worker process.

    Args:
        connection: for tasks and messages.
        inherited: in a fork, the parent's end of the connection, and its warning filters.
        function: what to run.
    """
    if inherited is not None:
        inherited[0].close()
        warnings.filters[:] = inherited[1]  # type: ignore[index]
    _alive.clear()  # The workers of the parent, which ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent gets it too, and kills this process.
    faulthandler.disable()  # The parent reports how this process ended.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    torch.set_num_threads(1)  # A fork has none of the threads of torch's pool, and would wait for them forever.
    with contextlib.suppress(EOFError, OSError):  # The parent has ended or closed the connection.
        while True:
            _send_all(connection, function, connection.recv())


def _send_all(connection: Connection, function: Function, task: Any) -> None:
    try:
        for message in function(task):
            connection.send(message)
    except Exception as error:
        # The errors of fusionkit keep their class; another exception may not survive pickling, but its traceback does.
        own = isinstance(error, ConfigError | FusionError | RegistryError | RemoteError)
        connection.send(error if own else RuntimeError("".join(traceback.format_exception(error))))
    else:
        connection.send(Finished())


@atexit.register
def _end_all() -> None:
    for worker in list(_alive):
        worker.end()


# ---------------------------------------------------------------------- the fresh interpreter


def start_fresh() -> _Worker:
    """Start the fresh interpreter unless it runs; returns before it is ready, which takes seconds."""
    global _interpreter
    with _lock:
        if _interpreter is None or _interpreter not in _alive:
            _interpreter = _Worker(_call_in_fork, "spawn")
        return _interpreter


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, called in a fork of a fresh interpreter with the caller's path and folder.

    Raises:
        RemoteError: the function raised, or its process ended.
    """
    with _lock:
        interpreter = start_fresh()
        messages: list[Any] = []
        try:
            interpreter.begin((list(sys.path), os.getcwd(), function, arguments))
            while interpreter.busy:
                wait([interpreter.connection], POLL_INTERVAL)
                messages += interpreter.receive(math.inf)
        finally:
            # The next call must not get the answer to one that was interrupted.
            if interpreter.busy or not can_fork():
                interpreter.end()
    if isinstance(messages[0], Lost):
        raise RemoteError(f"its process ended with {messages[0].how}")
    return messages[0]


def close() -> None:
    """End the fresh interpreter."""
    with _lock:
        if _interpreter in _alive:
            _interpreter.end()


def _call_in_fork(call: Any) -> Iterator[Any]:
    """Answer one call of ``fresh`` in a fork; without forks, in the interpreter itself, which then serves one call."""
    messages = (message for _, message in run(_call, deque([call]))) if can_fork() else _call(call)
    yield from (message for message in messages if not isinstance(message, Finished))


def _call(call: Any) -> Iterator[Any]:
    """Yield the result of the call, or raise a ``RemoteError``."""
    path, folder, function, arguments = call
    sys.path[:] = path
    os.chdir(folder)
    value, error = outcome(lambda: function(*arguments))
    if error is not None:
        raise RemoteError(describe(error))
    yield value
