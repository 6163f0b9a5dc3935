"""Runs checks in a forked process: an operator that ends it, or that nothing can interrupt, costs one result.

A fork takes milliseconds, since everything is imported.  What an operator writes to the process's own streams goes
nowhere.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, NoReturn

import torch

from fusionkit.contract import runner
from fusionkit.contract.report import Result
from fusionkit.contract.rules import Rule, describe, rule_of
from fusionkit.contract.runner import Plan, Started, ignore
from fusionkit.contract.subject import Case, Subject

__all__ = ["GRACE", "possible", "stream"]

#: Seconds beyond the time limit before a check that cannot be interrupted is killed; a compiler may get ready in them.
GRACE = 60.0
#: Seconds between two looks at whether the process still lives: a process of the operator's may hold the pipe open.
LOOK = 0.5
ENDS = "the operator should not end the process"


def possible() -> bool:
    """Whether a fork of this process can do its work; CUDA, once in use, forbids it, and macOS's frameworks do."""
    return hasattr(os, "fork") and sys.platform != "darwin" and not torch.cuda.is_initialized()


def stream(subjects: Sequence[Subject], plan: Plan, started: Started = ignore) -> Iterator[Result]:
    """Yield what ``runner.stream`` yields; where the process ends, an error result, and go on behind it."""
    left = [(tuple(subjects), plan)]
    while left:
        group, plan = left.pop()
        if not group or not plan.checks:
            continue
        child = _Child(group, plan)
        try:
            for message in child.messages():
                if isinstance(message, Result):
                    yield message
                else:
                    child.at = message
                    number, rule, case = message
                    started(group[number], rule, case)
        finally:
            child.end()
        if child.finished:
            continue
        subject, rule, case = group[child.at[0]], child.at[1], child.at[2]
        should, found = ENDS, child.ended
        if child.late:
            what = rule.name if rule else "examples()"
            should, found = f"{what} should end within {plan.time_limit:g} s", "no end, and no way to interrupt it"
        if rule is None:
            assert not subject.source.known  # Listed anew they could end the process again and again.
            subject.source.known.append(Case(problem=(f"{should} while the cases are built", found)))
            left.append((group[child.at[0] :], plan))
            continue
        lost = runner.failed(subject, rule, case, should, found, status="error")
        yield from runner.judged([lost], rule, plan)
        if plan.stop:
            return
        left.append((group[child.at[0] + 1 :], plan))
        names = [rule_of(check).name for check in plan.checks]
        left.append(((subject,), replace(plan, checks=plan.checks[names.index(rule.name) + 1 :])))


class _Child:
    """A fork that runs the plan on the subjects.

    Attributes:
        at: what it began last: the number of the subject, the check (None: its cases are listed), and the case.
        finished: whether it came to the end of the plan.
        late: whether it had to be killed.
        ended: how it ended, if it did not finish.
    """

    def __init__(self, subjects: tuple[Subject, ...], plan: Plan) -> None:
        self.at: tuple[int, Rule | None, str] = (0, None, "")
        self.finished = self.late = False
        self.ended = ""
        self._patience = plan.time_limit + GRACE
        self._connection, theirs = Pipe(duplex=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of threads: the child uses nothing of theirs.
            self._pid = os.fork()
        if not self._pid:
            self._connection.close()
            _work(theirs, subjects, plan)
        theirs.close()

    def messages(self) -> Iterator[Any]:
        """Yield the results and what it begins, until it finishes or ends."""
        while True:
            message = self._receive()
            if message is None:
                return
            if isinstance(message, BaseException):
                raise message
            yield message

    def _receive(self) -> Any:
        deadline = monotonic() + self._patience
        with contextlib.suppress(EOFError, OSError):
            while not self._connection.poll(LOOK):
                if self._reap(os.WNOHANG) and not self._connection.poll(0):
                    return None
                if monotonic() > deadline:
                    self.late = True
                    return None
            message = self._connection.recv()
            self.finished = message is None
            return message
        self._reap(0)
        return None

    def _reap(self, how: int) -> bool:
        """Return whether it has ended, and note how."""
        if not self.ended:
            pid, status = os.waitpid(self._pid, how)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.ended = f"exit status {code}" if code >= 0 else f"signal {_signal(-code)}"
        return bool(self.ended)

    def end(self) -> None:
        """End it, whatever it does."""
        self._connection.close()
        if not self._reap(os.WNOHANG):
            os.kill(self._pid, signal.SIGKILL)
            self._reap(0)


def _signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    return str(number)


def _work(connection: Connection, subjects: tuple[Subject, ...], plan: Plan) -> NoReturn:
    """Run the plan and tell of it; the life of the child."""
    try:
        faulthandler.disable()  # The parent says how the child ended.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        numbers = {id(subject): i for i, subject in enumerate(subjects)}

        def started(subject: Subject, rule: Rule | None, case: str) -> None:
            connection.send((numbers[id(subject)], rule, case))

        try:
            for result in runner.stream(subjects, plan, started):
                connection.send(result)
            connection.send(None)
        except Exception as error:
            try:
                connection.send(error)
            except Exception:  # It cannot be pickled.
                connection.send(RuntimeError(describe(error)))
    finally:
        os._exit(0)
