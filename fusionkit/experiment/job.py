"""One job of ``fusionkit run``: checks its config, runs it, and records how it ended; it never raises.

In a sweep a job may run in any process of any launcher.  It leaves its state in a file of its own, in the folder that
the process which started the sweep reads, and locks its run directory, which no other run then uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fusionkit._util.files import write_json
from fusionkit._util.text import error_message
from fusionkit.config import interpolations
from fusionkit.config.composition import plain_config
from fusionkit.config.fits import advised, preflight
from fusionkit.config.hashing import config_hash
from fusionkit.config.options import RunConfig, validate
from fusionkit.errors import ConfigError, DimsError, FusionError, RegistryError, Terminated
from fusionkit.experiment import run
from fusionkit.experiment.results import MODEL, RESULT, notify_plugins, read_result, start, write_failed

__all__ = ["EXPECTED", "Job", "JobFailed", "Outcome", "directory_lock", "recorded", "sentence", "takes_group"]

#: A job says how far it is at most this often, in seconds.
_INTERVAL = 0.5

#: What a run may end with: an error that is worded for users, or one of the file system.
EXPECTED = (FusionError, ConfigError, RegistryError, OSError)


class JobFailed(FusionError):
    """A run that ended with an error of another kind, such as an operator's; its record is in the run directory."""


@dataclass(frozen=True)
class Outcome:
    """The state of one job of a sweep.

    Attributes:
        directory: of the run.
        number: of the job.
        status: started, completed or failed.
        error: why it failed.
        overrides: what the job changes.
        seconds: that it took, once it has ended.
        accuracy: of a completed one.
        fraction: part of it that is done.
        earlier: it was completed before this sweep.
    """

    directory: str
    number: int
    status: str
    error: str | None = None
    overrides: tuple[str, ...] = ()
    seconds: float | None = None
    accuracy: float | None = None
    fraction: float = 0.0
    earlier: bool = False

    @property
    def ended(self) -> bool:
        """Whether the job has completed or failed."""
        return self.status != "started"

    def write(self, folder: Path) -> None:
        """Leave the outcome in the folder of a sweep, at once or not at all, if that sweep still lives."""
        with contextlib.suppress(FileNotFoundError):
            write_json(folder / f"{self.number}.json", asdict(self))

    @classmethod
    def read(cls, file: Path) -> Outcome:
        """Read what ``write`` left."""
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(**{**content, "overrides": tuple(content["overrides"])})


@dataclass
class Job:
    """The task function of Hydra.  It is sent to the workers of a launcher, so it holds plain data only.

    Attributes:
        sweep: the directory for outcomes if this is a sweep, else None.
        config: of a single run.
        suspects: run directories of jobs whose process was lost earlier; these get a process of their own.
        error: what a single run ended with, None if it completed.
    """

    sweep: str | None = None
    config: RunConfig | None = None
    suspects: frozenset[str] = frozenset()
    error: Exception | None = field(default=None, compare=False)

    def __call__(self, task: DictConfig) -> float | None:
        """Run one job and return its accuracy, None if it failed.  Only an interruption passes through."""
        hydra = HydraConfig.get()
        run_dir = Path(hydra.runtime.output_dir).absolute()
        if self.sweep is None:
            return self._single(run_dir)
        mine = Outcome(str(run_dir), int(hydra.job.num), "started", overrides=tuple(hydra.overrides.task))
        with directory_lock(run_dir):
            return self._swept(task, run_dir, mine, Path(self.sweep))

    def _single(self, run_dir: Path) -> float | None:
        assert self.config is not None
        try:
            with directory_lock(run_dir, wait=False), recorded(self.config.tree, run_dir):
                result = _run(self.config, run_dir)
        except EXPECTED as error:
            self.error = error
            return None
        return _accuracy(result)

    def _swept(self, task: DictConfig, run_dir: Path, mine: Outcome, folder: Path) -> float | None:
        before = None
        with contextlib.suppress(FileNotFoundError):
            before = Outcome.read(folder / f"{mine.number}.json")
        if before is not None and before.ended:  # The launcher was started again, after it had lost a process.
            return before.accuracy
        alone = before is not None or str(run_dir) in self.suspects
        begun = time.perf_counter()
        done: Mapping[str, Any] | None = None
        mine.write(folder)
        cfg: dict[str, Any] = {}
        try:
            with recorded(cfg, run_dir):
                cfg.update(plain_config(task))
                done = _completed(cfg, run_dir)
                result = done or self._run(cfg, task, run_dir, alone, _Reporter(mine, str(folder)))
            ended = replace(mine, status=str(result.get("status")), error=result.get("error"))
        except EXPECTED as error:
            result, ended = {}, replace(mine, status="failed", error=sentence(error))
        _freeze_imports()
        accuracy = _accuracy(result) if ended.status == "completed" else None
        seconds = time.perf_counter() - begun
        replace(ended, seconds=seconds, accuracy=accuracy, fraction=1.0, earlier=done is not None).write(folder)
        return accuracy

    def _run(
        self, cfg: dict[str, Any], task: DictConfig, run_dir: Path, alone: bool, report: _Reporter
    ) -> Mapping[str, Any]:
        config = validate(cfg)
        preflight(config, takes_group(task))
        return _run_alone(cfg, run_dir) if alone else _run(config, run_dir, quiet=True, report=report)


@cache
def _freeze_imports() -> None:
    """Take what the first job of this process has imported out of the garbage collector's sight, once.

    A worker of joblib collects after every job; a tenth of its time went into looking at modules that stay.
    """
    gc.collect()
    gc.freeze()


class _Reporter:
    """Says how far a job is; it can be sent to other processes."""

    def __init__(self, outcome: Outcome, folder: str) -> None:
        self.outcome, self.folder = outcome, folder
        self.next = 0.0

    def __call__(self, fraction: float) -> None:
        """Report the part that is done, 0 to 1."""
        if time.monotonic() >= self.next:
            replace(self.outcome, fraction=fraction).write(Path(self.folder))
            self.next = time.monotonic() + _INTERVAL


@contextmanager
def directory_lock(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on ``directory``, which is made if needed; released when the process exits.

    Args:
        directory: is locked itself; no lock file is left.
        wait: until the lock is free.

    Raises:
        FusionError: another process holds the lock, and ``wait`` is false.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise FusionError(
                f"The run directory should be used by one run at a time; found another run in {directory}."
            ) from None
        except OSError:  # Some network file systems lock no directories; there the files alone are written at once.
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def recorded(cfg: Mapping[str, Any], run_dir: Path) -> Iterator[None]:
    """Record how a run failed, and raise that.

    Raises:
        FusionError, ConfigError, RegistryError, OSError: why it failed; ``JobFailed`` for any other error.
        KeyboardInterrupt: the run was interrupted.
    """
    place, dtype = os.getcwd(), torch.get_default_dtype()
    try:
        yield
    except _Recorded as already:
        raise FusionError(str(already)) from None
    except BaseException as error:
        raised = _ended(error, cfg)
        try:
            if _completed(cfg, run_dir) is None:  # Else what went wrong is not the run, but to show it.
                notify_plugins(write_failed(run_dir, cfg, raised), run_dir)
        except OSError as problem:
            raise FusionError(f"{sentence(raised).rstrip('.')}; it could not be recorded: {problem}.") from error
        if isinstance(error, KeyboardInterrupt):
            raise
        if not isinstance(raised, EXPECTED):
            raised = JobFailed(sentence(raised))
        raise raised from (None if raised is error else error)
    finally:  # What an operator has changed does not reach the next job.
        os.chdir(place)
        torch.set_default_dtype(dtype)


def takes_group(task: DictConfig) -> bool:
    """Whether the fusion refers to the group ``fabrication``; a preset, or an override, writes its own out."""
    return bool(interpolations.raw(task)["fusion"].get("parameter_fabrication") == "${fabrication}")


def _run(config: RunConfig, run_dir: Path, **options: Any) -> Mapping[str, Any]:
    return run.run_job(config, run_dir, **options)


# -- a process of its own ----------------------------------------------------------------------------------------------


class _Recorded(Exception):
    """The job has failed in its own process, which has written its record."""


def _run_alone(cfg: dict[str, Any], run_dir: Path) -> Mapping[str, Any]:
    """Run a job that may end the process it runs in."""
    start(run_dir)
    content = json.dumps({"cfg": cfg, "run_dir": str(run_dir)}).encode()
    program = [sys.executable, "-c", "from fusionkit.experiment.job import alone; alone()"]
    status = subprocess.run(program, input=content, check=False).returncode
    try:
        found = read_result(run_dir / RESULT)
    except FusionError:
        raise FusionError(f"The process of a run should end with its result; found {_end(status)}.") from None
    if found["status"] != "completed":
        raise _Recorded(found.get("error") or "it failed")
    return found


def alone() -> None:
    """Run the job that stdin describes, in JSON, as the whole business of this process."""
    content = json.load(sys.stdin)
    cfg, run_dir = content["cfg"], Path(content["run_dir"])
    with contextlib.suppress(KeyboardInterrupt, *EXPECTED), recorded(cfg, run_dir):
        _run(validate(cfg), run_dir, quiet=True)


def _end(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"an end by {signal.Signals(-status).name}"
    except ValueError:
        return f"an end by signal {-status}"


# -- words -------------------------------------------------------------------------------------------------------------


def _completed(cfg: Mapping[str, Any], run_dir: Path) -> Mapping[str, Any] | None:
    """Return the record of an earlier run of the same configuration in this directory, if it is complete."""
    try:
        found = read_result(run_dir / RESULT)
    except FusionError:
        return None
    same = found.get("config_hash") == config_hash(cfg)
    return found if same and found["status"] == "completed" and (run_dir / MODEL).is_file() else None


def _ended(error: BaseException, cfg: Mapping[str, Any]) -> BaseException:
    """Return what a record says of an error: an interruption, too little memory, the way out of unequal widths."""
    if isinstance(error, DimsError):
        return advised(error, str(cfg["model"]["encoder"]))
    tried = re.search(r"tried to allocate ([\d.]+ \w+)", error_message(error), re.IGNORECASE)
    if isinstance(error, RuntimeError) and tried:
        return FusionError(f"The run should fit into the memory of its device; found too little for {tried[1]} more.")
    if not isinstance(error, KeyboardInterrupt):
        return error
    what = f"an end by {signal.Signals(error.args[0]).name}" if isinstance(error, Terminated) else "an interruption"
    return FusionError(f"The run should come to its end; found {what}.").with_traceback(error.__traceback__)


def _accuracy(result: Mapping[str, Any]) -> float | None:
    value = (result.get("metrics") or {}).get("accuracy")
    return float(value) if isinstance(value, int | float) and value == value else None


def sentence(error: BaseException) -> str:
    """Return an error in one line: its message, after its type where the message was not written for users."""
    name, text = type(error).__name__, error_message(error)
    return text if isinstance(error, FusionError | ConfigError | RegistryError) or text == name else f"{name}: {text}"
