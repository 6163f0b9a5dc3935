from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
import time
import warnings

import numpy
import pytest
import torch

from fusionkit.contract.guard import TimeLimit, guarded, restored, time_limit, untimed
from fusionkit.contract.rules import Violation


def test_seed_reaches_every_generator() -> None:
    drawn = []
    for seed in (1, 1, 2):
        with restored(seed):
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
    with restored(7):
        torch.rand(3), random.random(), numpy.random.rand(3)
    assert (torch.rand(1).item(), random.random(), float(numpy.random.rand())) == wanted


def test_settings_are_as_before_also_after_an_error() -> None:
    def state() -> tuple[object, ...]:
        torch_state = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
        return *torch_state, torch.is_grad_enabled(), list(warnings.filters)

    before = state()
    with contextlib.suppress(RuntimeError), restored(0):
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(before[2] + 2)  # type: ignore[operator]
        torch.set_grad_enabled(False)
        warnings.simplefilter("error")
        assert all(one != other for one, other in zip(before, state(), strict=True))
        raise RuntimeError("stop")
    assert state() == before


def test_warnings_within_are_not_errors() -> None:
    with restored(0):
        warnings.warn("the operator's own business", stacklevel=1)


def test_what_is_printed_is_kept_from_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with guarded(0, 5.0) as output:
        print("one")
        print("two", file=sys.stderr)
    with pytest.raises(Violation, match="should print nothing; found 'one'"):
        output.expect_none()
    assert capsys.readouterr() == ("", "")


def test_what_is_printed_as_an_error_is_no_violation() -> None:
    with guarded(0, 5.0) as output:
        print("two", file=sys.stderr)
    output.expect_none()


def compute(seconds: float) -> None:
    """Use this much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))


def test_time_limit_interrupts_a_computation_and_ignores_handlers() -> None:
    start = time.process_time()

    def stubborn() -> None:
        while True:
            try:
                compute(10)
            except Exception:
                continue

    with pytest.raises(TimeLimit, match=r"0\.2 s"), time_limit(0.2):
        stubborn()
    assert time.process_time() - start < 5


def test_time_limit_counts_no_time_in_which_other_processes_run() -> None:
    with time_limit(0.1):
        time.sleep(0.3)


def test_time_limit_ends_a_wait_after_ten_times_as_long() -> None:
    start = time.perf_counter()
    with pytest.raises(TimeLimit), time_limit(0.05):
        time.sleep(60)
    assert time.perf_counter() - start > 0.4


@pytest.mark.exhaustive
def test_time_limit_that_is_swallowed_once_comes_again() -> None:
    caught = []

    def swallows_once() -> None:
        try:
            compute(10)
        except BaseException as error:
            caught.append(error)
        compute(10)

    with pytest.raises(TimeLimit), time_limit(0.1):
        swallows_once()
    assert len(caught) == 1


def test_time_limit_leaves_the_handler_and_a_running_timer() -> None:
    timers = {signal.ITIMER_REAL: signal.SIGALRM, signal.ITIMER_PROF: signal.SIGPROF}
    handlers = {number: signal.getsignal(number) for number in timers.values()}
    for timer in timers:
        signal.setitimer(timer, 100)
    try:
        with time_limit(5):
            pass
        assert all(0 < signal.getitimer(timer)[0] <= 101 for timer in timers)
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_time_limit_in_another_thread() -> None:
    outcome: list[str] = []

    def work(seconds: float, spend: float) -> None:
        try:
            with time_limit(seconds):
                compute(spend)
            outcome.append("ended")
        except TimeLimit:
            outcome.append("stopped")

    for seconds, spend in ((0.2, 20.0), (20.0, 0.1)):
        thread = threading.Thread(target=work, args=(seconds, spend))
        thread.start()
        thread.join(10)
    assert outcome == ["stopped", "ended"]


def test_untimed_stops_the_clock() -> None:
    def work(untimed_for: float, timed_for: float) -> None:
        with time_limit(0.2):
            with untimed():
                compute(untimed_for)
            compute(timed_for)

    work(0.6, 0.01)
    with pytest.raises(TimeLimit):
        work(0.1, 30)
