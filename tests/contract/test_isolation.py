from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import pytest

import fusionkit
from fusionkit import cli
from fusionkit.contract import runner, workers
from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.report import Result
from fusionkit.contract.rules import Check, Rule
from fusionkit.contract.runner import Plan, stream, stream_in_workers
from fusionkit.contract.subject import Subject
from tests.contract.mutants.right import Mix, Total
from tests.exhaustive import exhaustive

pytestmark = pytest.mark.skipif(not workers.can_fork(), reason="needs a process that can fork")


def check_first(subject: Subject) -> None:
    """Passes."""


def check_exits(subject: Subject) -> None:
    """Ends the process."""
    if "Total" in subject.id:
        os._exit(3)


def check_crashes(subject: Subject) -> None:
    """Reads what is not there."""
    if "Total" in subject.id:
        ctypes.string_at(0)


def check_endless(subject: Subject) -> None:
    """Lets nothing interrupt it."""
    if "Total" in subject.id:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF, signal.SIGALRM})
        while True:
            sum(range(10_000))


def check_last(subject: Subject) -> None:
    """Fails."""
    assert "Total" not in subject.id, "at last"


HOSTILE = (check_first, check_exits, check_crashes, check_endless, check_last)


def alone(subjects: object, plan: Plan) -> list[Result]:
    return list(stream_in_workers(subjects_of(subjects), plan))


@pytest.mark.exhaustive
def test_it_finds_what_one_process_finds() -> None:
    plan = Plan.of(select=["forward_shape", "seeding", "gradcheck", "entry_point_resolves"])
    seen: list[tuple[Subject, Rule | None, str]] = []
    subjects = subjects_of(["lowrank", "summation"])
    found = list(stream_in_workers(subjects, plan, lambda *what: seen.append(what)))
    wanted: list[tuple[Subject, Rule | None, str]] = []
    same = list(stream(subjects, plan, lambda *what: wanted.append(what)))
    assert [(r.check, r.case, r.status, r.reason) for r in found] == [
        (r.check, r.case, r.status, r.reason) for r in same
    ]
    assert seen == wanted


@pytest.mark.parametrize("jobs", [2, *exhaustive([1])])
def test_what_ends_the_process_is_an_error_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.2)
    results = list(stream_in_workers(subjects_of([Total, Mix]), Plan(HOSTILE, time_limit=0.3), jobs=jobs))
    assert [r.subject for r in results] == sorted((r.subject for r in results), reverse=True)
    total = [
        (r.check, r.status, r.reason)
        for r in results
        if r.subject == "tests.contract.mutants.right:Total" and r.status != "passed"
    ]
    case = str(subjects_of(Total)[0].cases()[0])
    assert [r.case for r in results if r.check == "exits" and r.status == "error"] == [case]
    assert total[:3] == [
        ("exits", "error", "the operator should not end the process; found exit status 3"),
        (
            "crashes",
            "error",
            f"the operator should not end the process; found signal SIGSEGV ({signal.strsignal(signal.SIGSEGV)})",
        ),
        ("endless", "error", "endless should finish within 0.3 s; found that it did not, and could not be interrupted"),
    ]
    assert {(check, status) for check, status, _ in total[3:]} == {("last", "failed")}
    others = [r for r in results if r.subject == "tests.contract.mutants.right:Mix"]
    assert {r.check for r in others} == {"first", "exits", "crashes", "endless", "last"}
    assert {r.status for r in others} == {"passed"}


def test_stop_and_expected_failures() -> None:
    results = alone([Total, Mix], Plan((check_exits, check_last), stop=True))
    assert [(r.check, r.status) for r in results] == [("exits", "error")]
    results = alone(Total, Plan((check_exits, check_first), expected_failures={"exits": "it exits"}))
    assert results[0].status == "xfailed"
    assert results[0].reason == "it exits (the operator should not end the process; found exit status 3)"
    assert results[1:]
    assert {r.check for r in results[1:]} == {"first"}


class EndsInExamples(Mix):
    @classmethod
    def examples(cls) -> list[dict[str, object]]:
        os._exit(0)


def test_what_ends_while_cases_are_listed() -> None:
    def check_builds(subject: Subject) -> None:
        subject.build()

    def check_builds_again(subject: Subject) -> None:
        subject.build()

    results = alone([EndsInExamples, Mix], Plan((check_builds, check_builds_again)))
    assert [(r.check, r.status, r.case) for r in results[:2]] == [
        ("builds", "failed", "examples()"),
        ("builds_again", "failed", "examples()"),
    ]
    should = "the operator should not end the process while the cases are built; found exit status 0"
    assert {r.reason for r in results[:2]} == {should}
    assert {r.status for r in results[2:]} == {"passed"}


def test_wrong_usage_is_an_error_of_the_caller() -> None:
    with pytest.raises(fusionkit.ConfigError, match=r"case should .*found 'dims=\[9\]'"):
        alone(Total, Plan((check_first,), case="dims=[9]"))


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_the_fork(tmp_path: Path) -> None:
    def check_interrupts(subject: Subject) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(30)

    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        alone(Total, Plan((check_interrupts,)))
    assert time.perf_counter() - start < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_is_written_to_the_process_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    def check_writes(subject: Subject) -> None:
        os.write(1, b"hello")
        os.system("echo hello")

    assert {r.status for r in alone(Total, Plan((check_writes,)))} == {"passed"}
    assert capfd.readouterr().out == ""


def test_the_command_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hostile.py").write_text(
        "import os, ctypes, fusionkit\n"
        "class Exits(fusionkit.Fusion):\n"
        "    def calculate_n(self, dims=None): return self.resolve_equal_dims(dims)\n"
        "    def calculate_l(self): return 0\n"
        "    def _fuse(self, x): os._exit(0)\n"
        "class Crashes(Exits):\n"
        "    def _fuse(self, x): ctypes.string_at(0)\n"
        "class Good(Exits):\n"
        "    def _fuse(self, x): return sum(x[1:], x[0].clone())\n"
    )
    names = [f"hostile:{name}" for name in ("Exits", "Crashes", "Good")]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", *names, "--select", "forward_shape,l_pure"]) == 1
    out = capsys.readouterr().out
    for line in (
        "error forward_shape of hostile:Exits",
        "  found     exit status 0",
        "error forward_shape of hostile:Crashes",
        "  found     signal SIGSEGV",
    ):
        assert line in out
    assert "l_pure" not in out
    assert "2 error" in out.splitlines()[-1]


def test_checks_that_cannot_be_interrupted_cost_the_time_limit_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(name: str) -> Check:
        def check(subject: Subject) -> None:
            check_endless(subject)

        check.__name__ = name
        return check

    monkeypatch.setattr(runner, "GRACE", 0.2)
    results = alone(Total, Plan(tuple(map(endless, "abcde")), time_limit=0.2))
    assert [r.found for r in results[:3]] == ["that it did not, and could not be interrupted"] * 3
    assert [r.found for r in results[3:]] == ["that 3 checks before it did not finish in time, so it was left out"] * 2
