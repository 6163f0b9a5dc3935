"""Run operator code under a time limit and restore process state."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from time import monotonic, process_time
from types import FrameType
from typing import Any, TypeVar

import numpy
import torch

from fusionkit.contract.rules import expect

T = TypeVar("T")

#: How many times the limit of processor time a check may last on the clock: other processes may keep it waiting.
PATIENCE = 10


class TimeLimit(BaseException):
    """A check took too long; a BaseException, so that ``except Exception`` in an operator does not catch it."""


class _Stream(io.StringIO):
    """A stream that records a call of ``close``, and stays open."""

    close_called = False

    def close(self) -> None:
        self.close_called = True


class Output:
    """What operator code does to the standard streams."""

    def __init__(self) -> None:
        self.streams = {"sys.stdout": _Stream(), "sys.stderr": _Stream()}

    def expect_none(self) -> None:
        """Expect that nothing was printed to ``sys.stdout``, and that no stream was closed."""
        should = "the operator should leave the standard streams open"
        for name, stream in self.streams.items():
            expect(not stream.close_called, should, f"that it closed {name}")
        printed = " ".join(self.streams["sys.stdout"].getvalue().split())
        expect(not printed, "the operator should print nothing", repr(printed[:200]))


def attempt(call: Callable[[Output], T], seed: int, seconds: float) -> tuple[T | None, BaseException | None]:
    """Run operator code within ``guarded``; return its result, or what it raised.

    Raises:
        KeyboardInterrupt: the user interrupted; one that the operator raises is returned.
    """
    with _user_interrupt() as interrupted:
        try:
            with guarded(seed, seconds) as output:
                return call(output), None
        except BaseException as error:
            if interrupted.is_set():
                raise
            return None, error


@contextlib.contextmanager
def guarded(seed: int, seconds: float) -> Iterator[Output]:
    """Run operator code with seeded generators and a time limit; its output is captured."""
    output = Output()
    out, err = output.streams.values()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), restored(seed), time_limit(seconds):
        yield output


# ---------------------------------------------------------------------- the state of the process


def set_default_device(device: torch.device) -> None:
    """Set the device that ``torch.get_default_device`` returned; that of the processor means none."""
    torch.set_default_device(None if device.type == "cpu" else device)


#: Settings that are restored after a check: the function that reads each, and the one that sets it.
SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (random.getstate, random.setstate),
)


@contextlib.contextmanager
def restored(seed: int) -> Iterator[None]:
    """Seed all generators; restore their states, the warning filters and all ``SETTINGS`` afterwards."""
    settings, numpy_state = [read() for read, _ in SETTINGS], numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            # Warnings are no violation, and under "error" they would end a check.
            warnings.simplefilter("ignore")
            # The tensors of a check are small: more threads would wait for each other.
            torch.set_num_threads(1)
            random.seed(seed)
            numpy.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
    finally:
        numpy.random.set_state(numpy_state)
        for (read, write), before in zip(SETTINGS, settings, strict=True):
            if read() != before:
                write(before)


def world() -> dict[str, object]:
    """Return the state of the process that neither an import nor a call may change, in comparable form."""
    return {
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the state of torch's generator": torch.get_rng_state().tolist(),
        "the state of NumPy's generator": str(numpy.random.get_state()),
        "the state of Python's generator": random.getstate(),
        "the number of threads": torch.get_num_threads(),
        "the mode of gradients": torch.is_grad_enabled(),
        "the warning filters": [str(filter) for filter in warnings.filters],
        "the environment": dict(os.environ),
        "the current folder": os.getcwd(),
    }


# ---------------------------------------------------------------------- interruptions


@contextlib.contextmanager
def _user_interrupt() -> Iterator[threading.Event]:
    """Yield an event that is set when the user interrupts: an operator can raise KeyboardInterrupt too."""
    interrupted = threading.Event()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield interrupted  # Python interrupts the main thread only.
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        handler(number, frame)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, handler)


def time_limit(seconds: float) -> AbstractContextManager[None]:
    """Raise ``TimeLimit`` in the body after ``seconds`` of processor time of this process.

    A body that waits uses none, and ends after ``PATIENCE`` times as many seconds on the clock.  In the main thread a
    signal also ends a sleep or a wait.  In other threads, and on systems without that signal, the exception comes with
    the next Python instruction.
    """
    return _by_signal(seconds) if _has_timer() else _by_thread(seconds)


@contextlib.contextmanager
def untimed() -> Iterator[None]:
    """Pause the time limit of the main thread, while torch starts its compiler."""
    if not _has_timer():
        yield
        return
    left = {timer: signal.setitimer(timer, 0) for timer in _timers()}
    try:
        yield
    finally:
        for timer, (seconds, interval) in left.items():
            signal.setitimer(timer, seconds, interval)


def _has_timer() -> bool:
    """Whether a signal can end code of this thread."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


def _timers() -> dict[int, tuple[signal.Signals, float]]:
    """Return timer -> its signal, and by how much it prolongs the limit: of the processor time, and of the clock."""
    return {signal.ITIMER_PROF: (signal.SIGPROF, 1.0), signal.ITIMER_REAL: (signal.SIGALRM, PATIENCE)}


@contextlib.contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeLimit(f"{seconds:g} s")

    before = []
    for timer, (number, times) in _timers().items():
        handler = signal.signal(number, stop)
        # Repeated: an operator may swallow the first one in a bare except.
        before.append((timer, number, handler, signal.setitimer(timer, times * seconds, 1.0)))
    try:
        yield
    finally:
        for timer, *_ in before:
            signal.setitimer(timer, 0)
        for timer, number, handler, (left, interval) in before:
            signal.signal(number, handler)
            if left:
                signal.setitimer(timer, left, interval)


@contextlib.contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    caller = ctypes.c_ulong(threading.get_ident())
    lock, done = threading.Lock(), threading.Event()
    used, begun = process_time(), monotonic()

    def stop() -> None:
        while process_time() - used < seconds and monotonic() - begun < PATIENCE * seconds:
            if done.wait(min(seconds, 0.1)):
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
