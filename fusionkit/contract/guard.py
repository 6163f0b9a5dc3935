"""Runs somebody else's code so that it leaves no trace and comes to an end."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import logging
import operator
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from time import perf_counter
from types import FrameType
from typing import Any

import numpy
import torch

from fusionkit.registry import lookup

__all__ = ["Interrupts", "Output", "TimeLimit", "interrupts", "no_traces", "silence", "time_limit", "untimed"]


class TimeLimit(BaseException):
    """A check took too long.  No ``Exception``, so that an operator's own handlers let it pass."""


class _Kept(io.StringIO):
    """A stream that notes that somebody closed it, and stays open."""

    ended = False

    def close(self) -> None:
        self.ended = True


class Output:
    """What was printed meanwhile."""

    def __init__(self) -> None:
        self.stdout = _Kept()
        self.stderr = _Kept()

    @property
    def printed(self) -> str:
        """The text on the standard output, in one line."""
        return " ".join(self.stdout.getvalue().split())

    @property
    def closed(self) -> str:
        """The name of the stream that was closed; empty if none was."""
        return "sys.stdout" if self.stdout.ended else "sys.stderr" if self.stderr.ended else ""


@contextlib.contextmanager
def silence() -> Iterator[Output]:
    """Keep what is printed from the terminal."""
    output = Output()
    with contextlib.redirect_stdout(output.stdout), contextlib.redirect_stderr(output.stderr):
        yield output


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_deterministic(mode: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])


def _set_autocast(modes: dict[str, tuple[bool, torch.dtype]]) -> None:
    for kind, (enabled, dtype) in modes.items():
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


def _set_environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _set_root_logger(settings: tuple[int, int, list[logging.Handler]]) -> None:
    logging.disable(settings[0])
    logging.root.setLevel(settings[1])
    logging.root.handlers[:] = settings[2]


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _set_folder(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _hooks() -> tuple[Any, ...]:
    return sys.excepthook, sys.unraisablehook, threading.excepthook


def _set_hooks(hooks: tuple[Any, ...]) -> None:
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


#: What a check may have changed: how it is read, and how it is put back.
SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (
        lambda: {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")},
        _set_autocast,
    ),
    (lambda: vars(torch._tensor_str.PRINT_OPTS).copy(), vars(torch._tensor_str.PRINT_OPTS).update),
    (numpy.geterr, lambda errors: numpy.seterr(**errors)),
    (lambda: dict(os.environ), _set_environment),
    (_folder, _set_folder),
    (lambda: list(sys.path), lambda paths: operator.setitem(sys.path, slice(None), paths)),
    # torch's compiler raises it at the first graph that is not in its cache.
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (
        lambda: (logging.root.manager.disable, logging.root.level, list(logging.root.handlers)),
        _set_root_logger,
    ),
    (_hooks, _set_hooks),
    (gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
)


@contextlib.contextmanager
def no_traces(seed: int | None = None) -> Iterator[None]:
    """Put back what a check may have changed: random states, warning filters, the registry, and all ``SETTINGS``.

    Args:
        seed: of all generators within.
    """
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    settings = [read() for read, _ in SETTINGS]
    snapshot = lookup.current_snapshot()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            # The operator's and torch's warnings are not the kit's concern, and under "error" they would end a check.
            warnings.simplefilter("ignore")
            # The tensors of a check are small: more threads would wait for each other.
            torch.set_num_threads(1)
            if seed is not None:
                random.seed(seed)
                numpy.random.seed(seed % 2**32)
                torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        for (read, put_back), before in zip(SETTINGS, settings, strict=True):
            if read() != before:
                put_back(before)
        if lookup.current_snapshot() is not snapshot:
            lookup.publish(snapshot)


class Interrupts:
    """Whether the user interrupted, which is not the operator's doing."""

    seen = False


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Tell a ``KeyboardInterrupt`` of the user from one that the operator raises."""
    found = Interrupts()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield found  # The main thread gets the user's, or nobody.
        return

    def note(number: int, frame: FrameType | None) -> None:
        found.seen = True
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, handler)


class _Watch:
    """The clock of a thread, which ``untimed`` stops."""

    def __init__(self) -> None:
        self._free = 0.0
        self._since: float | None = None

    def read(self) -> float:
        """Return the seconds that count."""
        return (perf_counter() if self._since is None else self._since) - self._free

    def stop(self) -> None:
        self._since = perf_counter()

    def go(self) -> None:
        assert self._since is not None
        self._free += perf_counter() - self._since
        self._since = None


class _Watches(threading.local):
    """A watch for each thread."""

    def __init__(self) -> None:
        self.own = _Watch()


_watches = _Watches()


@contextlib.contextmanager
def untimed() -> Iterator[None]:
    """Do what is not the operator's, such as getting a compiler ready, outside the running time limits."""
    watch = _watches.own
    watch.stop()
    try:
        yield
    finally:
        watch.go()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeLimit`` in the code within after so many seconds; 0 or less means no limit.

    In the main thread a signal does it, also in the middle of a sleep or a wait.  Elsewhere, and without such signals,
    it takes effect at the next Python instruction.
    """
    if seconds <= 0:
        yield
    elif threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        yield from _by_signal(seconds)
    else:
        yield from _by_thread(seconds)


def _by_signal(seconds: float) -> Iterator[None]:
    watch = _watches.own
    start = watch.read()

    def stop(*_: object) -> None:
        if watch.read() - start >= seconds:
            raise TimeLimit(f"{seconds:g} s")

    handler = signal.signal(signal.SIGALRM, stop)
    # Repeated: an operator may swallow the first one in a bare except, and the watch may have been stopped.
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def _by_thread(seconds: float) -> Iterator[None]:
    caller = ctypes.c_ulong(threading.get_ident())
    watch = _watches.own
    start = watch.read()
    lock, done = threading.Lock(), threading.Event()

    def stop() -> None:
        while (left := seconds - (watch.read() - start)) > 0:
            if done.wait(max(left, 0.05)):
                return
        with lock:
            if not done.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(caller, ctypes.py_object(TimeLimit))

    threading.Thread(target=stop, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            done.set()
