from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings

import numpy
import pytest
import torch

from fusionkit.contract.guard import TimeLimit, no_traces, silence, time_limit, untimed


def test_seed_reaches_every_generator() -> None:
    drawn = []
    for seed in (1, 1, 2):
        with no_traces(seed):
            drawn.append((torch.rand(1).item(), random.random(), float(numpy.random.rand())))
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


def test_generators_are_as_before() -> None:
    torch.manual_seed(1)
    random.seed(1)
    numpy.random.seed(1)
    wanted = torch.rand(1).item(), random.random(), float(numpy.random.rand())
    torch.manual_seed(1)
    random.seed(1)
    numpy.random.seed(1)
    with no_traces(7):
        torch.rand(3), random.random(), numpy.random.rand(3)
    assert (torch.rand(1).item(), random.random(), float(numpy.random.rand())) == wanted


def test_settings_are_as_before_also_after_an_error() -> None:
    before = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled()
    autocast = torch.get_autocast_dtype("cpu")
    with contextlib.suppress(RuntimeError), no_traces():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(torch.get_num_threads() + 2)
        torch.set_grad_enabled(False)
        torch.set_autocast_enabled("cpu", True)
        torch.set_autocast_dtype("cpu", torch.float16)
        torch.set_float32_matmul_precision("medium")
        torch.autograd.set_detect_anomaly(True)
        raise RuntimeError("stop")
    after = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled()
    assert after == before
    assert not torch.is_autocast_enabled("cpu")
    assert torch.get_autocast_dtype("cpu") == autocast
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.is_anomaly_enabled()


def test_environment_folder_and_filters_are_as_before(tmp_path: object) -> None:
    environment, folder, filters = dict(os.environ), os.getcwd(), list(warnings.filters)
    with no_traces():
        os.environ["FUSIONKIT_TEST"] = "1"
        os.environ["PATH"] = ""
        del os.environ["HOME"]
        os.chdir(str(tmp_path))
        warnings.simplefilter("error")
    assert (dict(os.environ), os.getcwd(), warnings.filters) == (environment, folder, filters)


def test_the_interpreter_is_as_before() -> None:
    def state() -> tuple[object, ...]:
        hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
        log = logging.root.manager.disable, logging.root.level, list(logging.root.handlers)
        errors, options = numpy.geterr(), dict(vars(torch._tensor_str.PRINT_OPTS))
        return sys.getrecursionlimit(), list(sys.path), hooks, log, errors, options, gc.isenabled()

    before = state()
    with no_traces():
        sys.setrecursionlimit(before[0] + 1000)  # type: ignore[operator]
        sys.path.clear()
        for module, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
            setattr(module, hook, print)
        logging.disable(logging.ERROR)
        logging.root.setLevel(logging.DEBUG)
        logging.root.addHandler(logging.NullHandler())
        numpy.seterr(all="raise")
        torch.set_printoptions(precision=1)
        gc.disable()
        assert all(one != other for one, other in zip(before, state(), strict=True))
    assert state() == before


def test_warnings_within_are_not_errors() -> None:
    with no_traces():
        warnings.warn("the operator's own business", stacklevel=1)


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with silence() as output:
        print("one")
        print("two")
    assert output.printed == "one two"
    assert capsys.readouterr().out == ""


def test_time_limit_interrupts_a_sleep_and_ignores_handlers() -> None:
    start = time.perf_counter()

    def stubborn() -> None:
        while True:
            try:
                time.sleep(10)
            except Exception:
                continue

    with pytest.raises(TimeLimit, match=r"0\.2 s"), time_limit(0.2):
        stubborn()
    assert time.perf_counter() - start < 5


def test_time_limit_that_is_swallowed_once_comes_again() -> None:
    caught = []

    def swallows_once() -> None:
        try:
            time.sleep(10)
        except BaseException as error:
            caught.append(error)
        time.sleep(10)

    with pytest.raises(TimeLimit), time_limit(0.1):
        swallows_once()
    assert len(caught) == 1


def test_time_limit_leaves_the_handler_and_a_running_timer() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with time_limit(5):
            pass
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert signal.getsignal(signal.SIGALRM) is handler


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_limit(seconds: float) -> None:
    with time_limit(seconds):
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_time_limit_in_another_thread() -> None:
    outcome: list[str] = []

    def work(seconds: float, spend: float) -> None:
        try:
            with time_limit(seconds):
                end = time.perf_counter() + spend
                while time.perf_counter() < end:
                    time.sleep(0.001)
            outcome.append("ended")
        except TimeLimit:
            outcome.append("stopped")

    for seconds, spend in ((0.2, 20.0), (20.0, 0.1)):
        thread = threading.Thread(target=work, args=(seconds, spend))
        thread.start()
        thread.join(10)
    assert outcome == ["stopped", "ended"]


def test_untimed_stops_the_watch() -> None:
    outcome: list[str] = []

    def work(limit: float, free: float, timed: float) -> None:
        try:
            with time_limit(limit):
                with untimed():
                    time.sleep(free)
                end = time.perf_counter() + timed
                while time.perf_counter() < end:
                    time.sleep(0.001)
            outcome.append("ended")
        except TimeLimit:
            outcome.append("stopped")

    cases = ((0.2, 0.6, 0.01), (0.2, 0.1, 30.0))
    for case in cases:
        work(*case)
        thread = threading.Thread(target=work, args=case)
        thread.start()
        thread.join(10)
    assert outcome == ["ended", "ended", "stopped", "stopped"]
