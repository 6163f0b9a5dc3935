"""Functions in other processes."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator

import pytest

import fusionkit
from fusionkit.contract import workers
from fusionkit.contract.workers import Finished, Lost, RemoteError, fresh, run

forks = pytest.mark.skipif(not workers.can_fork(), reason="needs a process that can fork")


def squares(count: int) -> Iterator[int]:
    for number in range(count):
        yield number**2


def misbehaves(task: str) -> Iterator[str]:
    yield f"begins {task}"
    if task == "exits":
        os._exit(3)
    if task == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "waits":
        time.sleep(60)
    while task == "computes":
        sum(range(10_000))
    if task == "raises":
        raise fusionkit.ConfigError("wrong usage")
    if task == "fails":
        raise ZeroDivisionError("a bug")


def messages(task: str, **options: float) -> list[object]:
    return [message for _, message in run(misbehaves, deque([task]), **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [pytest.param("fork", marks=forks), "spawn"])
def test_every_message_comes_with_its_task(method: workers.Method) -> None:
    found = list(run(squares, deque([3, 0, 2]), jobs=2, method=method))
    for task in (3, 0, 2):
        of_task = [message for other, message in found if other == task]
        assert of_task == [*(number**2 for number in range(task)), Finished()]
    assert len(found) == 3 + 0 + 2 + 3


@forks
def test_a_lost_process_costs_its_task() -> None:
    assert messages("exits") == ["begins exits", Lost("exit status 3")]
    assert messages("crashes") == ["begins crashes", Lost(f"signal SIGSEGV ({signal.strsignal(signal.SIGSEGV)})")]


@forks
@pytest.mark.parametrize(("task", "timeout", "at_least"), [("computes", 0.3, 0.3), ("waits", 0.1, 1.0)])
def test_the_timeout_counts_processor_time_and_a_wait_ten_times_as_long(
    task: str, timeout: float, at_least: float
) -> None:
    start = time.perf_counter()
    *_, lost = messages(task, timeout=timeout)
    assert lost == Lost(f"signal SIGKILL ({signal.strsignal(signal.SIGKILL)})", timed_out=True)
    assert time.perf_counter() - start > at_least


@forks
def test_the_caller_may_add_tasks() -> None:
    tasks, found = deque(["exits"]), []
    for task, message in run(misbehaves, tasks):
        found.append((task, type(message)))
        if isinstance(message, Lost):
            tasks.append("ends")
    assert found == [("exits", str), ("exits", Lost), ("ends", str), ("ends", Finished)]


@forks
def test_an_exception_is_raised_in_the_caller() -> None:
    with pytest.raises(fusionkit.ConfigError, match="wrong usage"):
        messages("raises")
    with pytest.raises(RuntimeError, match=r"in misbehaves(.|\n)*ZeroDivisionError: a bug"):
        messages("fails")


@forks
def test_processes_end_with_the_iteration() -> None:
    running = run(pids, deque([0]))
    _, pid = next(running)
    running.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def pids(task: object) -> Iterator[int]:
    yield os.getpid()
    time.sleep(60)


# ---------------------------------------------------------------------- the fresh interpreter


@pytest.fixture(autouse=True, scope="module")
def _ends_the_interpreter() -> Iterator[None]:
    yield
    workers.close()


def test_a_fresh_interpreter_has_not_imported_what_this_one_has() -> None:
    loaded = fresh(eval, "list(__import__('sys').modules)")
    assert "fusionkit.fusion" in loaded
    assert "pytest" not in loaded


def test_every_call_has_a_process_of_its_own_and_the_path_and_folder_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    first, second = (fresh(os.getpid) for _ in range(2))
    assert len({first, second, os.getpid()}) == 3
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.syspath_prepend("/nowhere")
    assert fresh(os.getcwd) == str(tmp_path)
    assert fresh(eval, "__import__('sys').path[0]") == "/nowhere"


def test_what_fails_in_a_fresh_interpreter() -> None:
    with pytest.raises(RemoteError, match=r"^ZeroDivisionError: "):
        fresh(divmod, 1, 0)
    with pytest.raises(RemoteError, match=r"^SystemExit: 4$"):
        fresh(sys.exit, 4)
    with pytest.raises(RemoteError, match=r"^its process ended with exit status 3$"):
        fresh(os._exit, 3)
    assert fresh(divmod, 7, 2) == (3, 1)


def test_a_lost_interpreter_is_started_anew() -> None:
    parent = fresh(os.getppid)
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(RemoteError, match=r"^its process ended with signal SIGKILL"):
        fresh(os.getppid)
    assert fresh(os.getppid) != parent


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_leaves_no_answer_for_the_next() -> None:
    fresh(os.getpid)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            fresh(time.sleep, 60)
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert fresh(divmod, 7, 2) == (3, 1)


@forks
def test_a_fork_has_the_main_module_and_the_warning_filters_of_its_parent() -> None:
    found = dict(next(run(settings, deque([0])))[1])
    assert found == {"main": sys.modules["__main__"].__name__, "file": _main_file(), "filters": len(warnings.filters)}


def settings(task: object) -> Iterator[list[tuple[str, object]]]:
    yield [("main", sys.modules["__main__"].__name__), ("file", _main_file()), ("filters", len(warnings.filters))]


def _main_file() -> object:
    return getattr(sys.modules["__main__"], "__file__", None)
