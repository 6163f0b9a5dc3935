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
from types import FrameType
from typing import Any

import numpy
import torch

from fusionkit.contract.rules import expect

__all__ = ["Interrupts", "Output", "TimeLimit", "guarded", "interrupts", "restored", "time_limit", "untimed", "world"]


class TimeLimit(BaseException):
    """A check took too long.  No ``Exception``, so that an operator's own handlers let it pass."""


class _OpenStream(io.StringIO):
    """A stream that notes that it was closed, and stays open."""

    ended = False

    def close(self) -> None:
        self.ended = True


class Output:
    """The standard streams of operator code."""

    def __init__(self) -> None:
        self.streams = {"sys.stdout": _OpenStream(), "sys.stderr": _OpenStream()}

    def expect_none(self) -> None:
        """Expect that nothing was printed, and that no stream was closed."""
        for name, stream in self.streams.items():
            expect(not stream.ended, "the operator should leave the standard streams open", f"that it closed {name}")
        printed = " ".join(self.streams["sys.stdout"].getvalue().split())
        expect(not printed, "the operator should print nothing", repr(printed[:200]))


@contextlib.contextmanager
def guarded(seed: int, seconds: float) -> Iterator[Output]:
    """Run operator code with these random states, within the time limit; keep what it prints from the terminal."""
    output = Output()
    out, err = output.streams.values()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        restored(seed),
        time_limit(seconds),
    ):
        yield output


# ---------------------------------------------------------------------- the state of the process


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


#: What is put back after a check: how it is read, and how it is set.
SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (random.getstate, random.setstate),
)


@contextlib.contextmanager
def restored(seed: int) -> Iterator[None]:
    """Seed all generators; put their states, the warning filters and all ``SETTINGS`` back afterwards."""
    settings, numpy_state = [read() for read, _ in SETTINGS], numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            # The operator's and torch's warnings are not the kit's concern, and under "error" they would end a check.
            warnings.simplefilter("ignore")
            # The tensors of a check are small: more threads would wait for each other.
            torch.set_num_threads(1)
            random.seed(seed)
            numpy.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
    finally:
        numpy.random.set_state(numpy_state)
        for (read, put_back), before in zip(SETTINGS, settings, strict=True):
            if read() != before:
                put_back(before)


def world() -> dict[str, object]:
    """Return what neither an import nor a call may change, in comparable form."""
    return {
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the state of torch's generator": torch.get_rng_state().tolist(),
        "the state of NumPy's generator": str(numpy.random.get_state()),
        "the state of Python's generator": random.getstate(),
        "the number of threads": torch.get_num_threads(),
        "the warning filters": [str(filter) for filter in warnings.filters],
        "the environment": dict(os.environ),
        "the current folder": os.getcwd(),
    }


# ---------------------------------------------------------------------- interruptions


class Interrupts:
    """Whether the user interrupted, which is not the operator's doing."""

    by_user = False


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Distinguish a ``KeyboardInterrupt`` of the user from one that the operator raises."""
    found = Interrupts()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield found  # Python interrupts the main thread only.
        return

    def note(number: int, frame: FrameType | None) -> None:
        found.by_user = True
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeLimit`` in the code within after ``seconds``; 0 or less means no limit.

    In the main thread a signal does it, also in the middle of a sleep or a wait.  Elsewhere, and without such signals,
    it takes effect at the next Python instruction.
    """
    if seconds <= 0:
        yield
    elif threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        yield from _by_signal(seconds)
    else:
        yield from _by_thread(seconds)


@contextlib.contextmanager
def untimed() -> Iterator[None]:
    """Stop the clock of a time limit in the main thread, while torch gets its compiler ready."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)


def _by_signal(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeLimit(f"{seconds:g} s")

    handler = signal.signal(signal.SIGALRM, stop)
    # Repeated: an operator may swallow the first one in a bare except.
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
    lock, done = threading.Lock(), threading.Event()

    def stop() -> None:
        if not done.wait(seconds):
            with lock:
                if not done.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(caller, ctypes.py_object(TimeLimit))

    threading.Thread(target=stop, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            done.set()
