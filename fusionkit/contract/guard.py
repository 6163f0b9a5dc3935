"""Runs somebody else's code so that it leaves no trace and comes to an end."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from time import perf_counter
from types import FrameType

import numpy
import torch

from fusionkit import registry

__all__ = ["Interrupts", "Output", "TimeLimit", "interrupts", "no_traces", "silence", "time_limit", "untimed"]


class TimeLimit(BaseException):
    """A check took too long.  No ``Exception``, so that an operator's own handlers let it pass."""


class Output:
    """What was printed meanwhile."""

    def __init__(self) -> None:
        self.stdout = io.StringIO()
        self.stderr = io.StringIO()

    @property
    def printed(self) -> str:
        """The text on the standard output, in one line."""
        return " ".join(self.stdout.getvalue().split())


@contextlib.contextmanager
def silence() -> Iterator[Output]:
    """Keep what is printed from the terminal."""
    output = Output()
    with contextlib.redirect_stdout(output.stdout), contextlib.redirect_stderr(output.stderr):
        yield output


@contextlib.contextmanager
def no_traces(seed: int | None = None) -> Iterator[None]:
    """Put back what a check may have changed: random states, torch's defaults, warning filters, environment, registry.

    Args:
        seed: of all generators within.
    """
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    dtype, device, threads = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    gradients, deterministic = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision, anomalies = torch.get_float32_matmul_precision(), torch.is_anomaly_enabled()
    autocast = {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")}
    environment, folder, paths = dict(os.environ), os.getcwd(), list(sys.path)
    snapshot = registry._snapshot()
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
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)
        if torch.is_anomaly_enabled() != anomalies:
            torch.autograd.set_detect_anomaly(anomalies)
        for kind, (enabled, kept) in autocast.items():
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, kept)
        _restore_environment(environment)
        if _folder() != folder:
            os.chdir(folder)
        if sys.path != paths:
            sys.path[:] = paths
        if registry._snapshot() is not snapshot:
            registry._publish(snapshot)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _restore_environment(before: dict[str, str]) -> None:
    if dict(os.environ) == before:
        return
    for name in set(os.environ) - set(before):
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


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
