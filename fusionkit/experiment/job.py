"""One job of a sweep: checks its config, runs it, and records how it ended, whatever the error.

A job may run in any process of any launcher.  It writes its state to a file, which the process that started
the sweep reads, and locks its run directory, so that no other run uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fusionkit._util.files import write_json
from fusionkit._util.text import error_line, error_message
from fusionkit.config.composition import plain_config
from fusionkit.config.fits import NotApplicable, advised, preflight
from fusionkit.config.hashing import config_hash
from fusionkit.config.options import validate
from fusionkit.errors import ConfigError, DimsError, FusionError, RegistryError, Terminated
from fusionkit.experiment import run
from fusionkit.experiment.checkpoint import Checkpoint, newest
from fusionkit.experiment.load import is_complete
from fusionkit.experiment.metrics import rank_value
from fusionkit.experiment.results import (
    MODEL,
    RESULT,
    check_own,
    notify_plugins,
    read_result,
    save_configs,
    start,
    versions,
    write_failed,
)
from fusionkit.registry.loading import process_state

#: Seconds between two reports of the progress of a job, at least.
_INTERVAL = 0.5

#: How often a job is tried whose worker is lost.
MAX_TRIES = 2
#: The launcher that ends all workers when one is lost: there a job may lose several through no fault of its own.
_POOL = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"

#: The state of a job whose fusion does not take its fabrication.
NOT_APPLICABLE = "not applicable"

#: Errors that are no bugs: those with a message for users, and those of the file system.
EXPECTED = (FusionError, ConfigError, RegistryError, OSError)


class JobFailed(FusionError):
    """A run that ended with an unexpected error, such as an operator's; its record is in the run directory."""


@dataclass(frozen=True)
class Outcome:
    """The state of one job of a sweep.

    Attributes:
        directory: of the run.
        number: of the job.
        status: started, completed, failed or "not applicable": a combination that cannot be, and has no record.
        error: why it failed, or is not applicable.
        overrides: the overrides of this job.
        seconds: its duration, once it has ended.
        metric: which metric ranks a completed job.
        value: of that metric; None where it is undefined.
        part: where it was measured, ``validation`` or ``metrics`` (the test part).
        fraction: the part of the job that is done, 0 to 1.
        earlier: whether it was completed before this sweep.
        resumed: after which epoch it went on from a checkpoint, in words; None: it began afresh.
        tries: how often it started in this sweep.
    """

    directory: str
    number: int
    status: str
    error: str | None = None
    overrides: Sequence[str] = ()
    seconds: float | None = None
    metric: str = "accuracy"
    value: float | None = None
    part: str = "metrics"
    fraction: float = 0.0
    earlier: bool = False
    resumed: str | None = None
    tries: int = 1

    @property
    def ended(self) -> bool:
        """Whether the job has completed or failed, or is not applicable."""
        return self.status != "started"

    @property
    def objective(self) -> float | None:
        """What the job returns: its value so that more is better; None if it failed or the value is undefined."""
        return None if self.value is None else rank_value(self.metric, self.value)

    def write(self, folder: Path) -> None:
        """Write the outcome to the folder of a sweep, atomically, if that sweep is still running."""
        with contextlib.suppress(FileNotFoundError):
            write_json(folder / f"{self.number}.json", asdict(self))

    @classmethod
    def read(cls, file: Path) -> Outcome:
        """Read a file that ``write`` wrote."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))


@dataclass
class Job:
    """The task function of Hydra.  Launchers send it to their workers, so all of it can be pickled.

    Attributes:
        folder: to which the jobs write their outcomes.
        suspects: run directories of jobs whose process died earlier; each of these jobs gets its own process.
        subdir: the folder in a run directory for the composed configs, None for none.
    """

    folder: str
    suspects: frozenset[str] = frozenset()
    subdir: str | None = None

    def __call__(self, task: DictConfig) -> float | None:
        """Run one job and return its ``Outcome.objective``; raise only an interruption, or if the state cannot be
        written.
        """
        hydra = HydraConfig.get()
        run_dir = Path(hydra.runtime.output_dir).absolute()
        state = Outcome(str(run_dir), int(hydra.job.num), "started", overrides=tuple(hydra.overrides.task))
        try:
            check_own(run_dir, Path(os.path.abspath(Path(self.folder).parents[1])))
            check_logs(run_dir)
        except FusionError as error:  # It cannot be recorded there either.
            replace(state, status="failed", error=sentence(error), fraction=1.0).write(Path(self.folder))
            return None
        with directory_lock(run_dir):
            return self._locked(task, run_dir, state, Path(self.folder))

    def _locked(self, task: DictConfig, run_dir: Path, state: Outcome, folder: Path) -> float | None:
        before = None
        with contextlib.suppress(FileNotFoundError):
            before = Outcome.read(folder / f"{state.number}.json")
        if before is not None and before.ended:  # The launcher was started again, after a process died.
            return before.objective
        if before is not None:
            state = replace(state, tries=before.tries + 1)
        own_process = before is not None or str(run_dir) in self.suspects
        begun = time.perf_counter()
        done: Mapping[str, Any] | None = None
        state.write(folder)
        cfg: dict[str, Any] = {}  # Filled below, so that a failure to resolve it is recorded too.
        try:
            with recorded(cfg, run_dir):
                cfg.update(plain_config(task))
                done = _completed(cfg, run_dir)
                found = None if done else _resumable(cfg, run_dir)
                state = replace(state, resumed=None if found is None else found.place)
                result = done or self._run(cfg, task, own_process, _Reporter(state, self.folder), found)
        except EXPECTED as error:
            result = {"status": "failed", "error": sentence(error)}
        if result["status"] == NOT_APPLICABLE:
            with contextlib.suppress(OSError):  # It contains a record of another release.
                run_dir.rmdir()
        _freeze_imports()
        final = replace(state, status=result["status"], error=result.get("error"), **_measured(result))
        seconds = time.perf_counter() - begun
        replace(final, seconds=seconds, fraction=1.0, earlier=done is not None).write(folder)
        return final.objective

    def _run(
        self, cfg: dict[str, Any], task: DictConfig, own_process: bool, report: _Reporter, found: Checkpoint | None
    ) -> Mapping[str, Any]:
        """Run the job, unless its fusion does not take its fabrication; return its record, or that status."""
        config, run_dir = validate(cfg), Path(report.outcome.directory)
        try:
            preflight(config, run.takes_group(config))
        except NotApplicable as error:
            return {"status": NOT_APPLICABLE, "error": sentence(error)}
        save_composed(task, run_dir, self.subdir)
        if report.outcome.tries > MAX_TRIES and HydraConfig.get().launcher["_target_"] != _POOL:
            # The worker itself was lost each time, and wrote no record.
            raise FusionError(f"The worker of a job should live until the job ends; found {MAX_TRIES} that were lost.")
        if own_process:
            return _run_alone(cfg, run_dir)
        return run.run_job(config, run_dir, quiet=True, draw=False, report=report, found=found)


@cache
def _freeze_imports() -> None:
    """Exclude the modules that the first job of this process imported from garbage collection, once.

    A worker of joblib collects after every job; a tenth of its time went into scanning modules that are never freed.
    """
    gc.collect()
    gc.freeze()


class _Reporter:
    """Writes the progress of a job; can be pickled."""

    def __init__(self, outcome: Outcome, folder: str) -> None:
        self.outcome, self.folder, self.next = outcome, folder, 0.0

    def __call__(self, fraction: float) -> None:
        """Report the part that is done, 0 to 1."""
        if time.monotonic() >= self.next:
            replace(self.outcome, fraction=fraction).write(Path(self.folder))
            self.next = time.monotonic() + _INTERVAL


@contextlib.contextmanager
def directory_lock(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on ``directory``, which is made if needed; released when the process exits.

    Args:
        directory: locked itself, without a lock file.
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
            what = "The run directory should be used by one run at a time"
            raise FusionError(f"{what}; found another run in {directory}.") from None
        except OSError:  # Some network file systems lock no directories; there only the atomic files protect a run.
            pass
        yield
    finally:
        os.close(descriptor)


def check_logs(run_dir: Path) -> None:
    """Refuse a log file in the directory of a run that is, or is behind, a link, before anything is logged to it.

    Raises:
        FusionError: as ``check_own``.
    """
    for handler in logging.root.handlers[:]:
        if isinstance(handler, logging.FileHandler) and handler.stream is None:
            try:
                check_own(Path(handler.baseFilename), run_dir)
            except FusionError:
                logging.root.removeHandler(handler)
                raise


def save_composed(task: DictConfig, run_dir: Path, subdir: str | None) -> None:
    """Write what Hydra composed to ``subdir`` of the run directory, which the caller has locked; None: write nothing.

    Hydra, told that there is no ``hydra.output_subdir``, would write it before the lock, and through links.
    """
    if subdir is not None:
        hydra: Any = HydraConfig.get()
        node = OmegaConf.create({"hydra": {**hydra, "output_subdir": subdir}})
        configs = {"config": task, "hydra": node, "overrides": node.hydra.overrides.task}
        save_configs(run_dir / subdir, run_dir, configs)


@contextlib.contextmanager
def recorded(cfg: Mapping[str, Any], run_dir: Path) -> Iterator[None]:
    """Return a context for a run: if the body raises, record the failure and raise an expected error.

    Raises:
        FusionError, ConfigError, RegistryError, OSError: why it failed; ``JobFailed`` for any other error.
        KeyboardInterrupt: the run was interrupted.
    """
    try:
        with process_state():  # An operator may have changed it; the next job should start with the old one.
            yield
    except BaseException as error:
        raised = _ended(error, cfg)
        try:
            if _completed(cfg, run_dir) is None:  # Otherwise only printing the summary failed.
                notify_plugins(write_failed(run_dir, cfg, raised), run_dir)
        except OSError as problem:
            raise FusionError(f"{sentence(raised).rstrip('.')}; it could not be recorded: {problem}.") from error
        if isinstance(error, KeyboardInterrupt):
            raise
        if not isinstance(raised, EXPECTED):
            raised = JobFailed(sentence(raised))
        raise raised from (None if raised is error else error)


def run_recorded(cfg: Mapping[str, Any], run_dir: Path, *, resume: bool = False, **options: Any) -> Mapping[str, Any]:
    """Run a job, with options of ``run_job``; return the record, also of a failed run.

    Args:
        cfg: of the job.
        run_dir: its directory.
        resume: go on from a checkpoint of the same config, if there is one.
        **options: of ``run_job``.

    Raises:
        KeyboardInterrupt: the run was interrupted, which is recorded.
    """
    try:
        with recorded(cfg, run_dir):
            found = _resumable(cfg, run_dir) if resume else None
            return run.run_job(validate(cfg), run_dir, found=found, **options)
    except EXPECTED:
        return read_result(run_dir / RESULT)


# -- a process of its own ----------------------------------------------------------------------------------------------


def _run_alone(cfg: dict[str, Any], run_dir: Path) -> Mapping[str, Any]:
    """Run a job that may end its process in a process of its own; return the record, also of a failed run."""
    start(run_dir, keep_checkpoints=True)
    content = json.dumps({"cfg": cfg, "run_dir": str(run_dir)}).encode()
    program = [sys.executable, "-c", "from fusionkit.experiment.job import alone; alone()"]
    status = subprocess.run(program, input=content, check=False).returncode
    try:
        return read_result(run_dir / RESULT)
    except FusionError:
        end = f"exit status {status}" if status >= 0 else f"an end by {_signal_name(-status)}"
        raise FusionError(f"The process of a run should end with its result; found {end}.") from None


def alone() -> None:
    """Run the job that stdin describes in JSON: the main function of a job's own process."""
    content = json.load(sys.stdin)
    with contextlib.suppress(KeyboardInterrupt):
        run_recorded(content["cfg"], Path(content["run_dir"]), resume=True, quiet=True, draw=False)


def _signal_name(number: int) -> str:
    return next((one.name for one in signal.Signals if one == number), f"signal {number}")


# -- records and errors ------------------------------------------------------------------------------------------------


def _completed(cfg: Mapping[str, Any], run_dir: Path) -> Mapping[str, Any] | None:
    """Return the record of an earlier run of the same configuration in this directory, if it is complete."""
    try:
        found = read_result(run_dir / RESULT)
    except FusionError:
        return None
    same = found.get("config_hash") == config_hash(cfg)
    return found if same and found["status"] == "completed" and is_complete(run_dir / MODEL) else None


def _resumable(cfg: Mapping[str, Any], run_dir: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint in this directory, if it is of the same configuration, data and versions.

    With others the numbers would be those of no version, and a job has no place for a note.
    """
    found, _ = newest(run_dir)
    if found is None or found.facts.config_hash != config_hash(cfg) or found.facts.versions != versions(cfg):
        return None
    return found


def _ended(error: BaseException, cfg: Mapping[str, Any]) -> BaseException:
    """Return the error to record: with a message for interruptions and for too little memory, and hints on widths."""
    if isinstance(error, DimsError):
        return advised(error, str(cfg["model"]["encoder"]))
    tried = re.search(r"tried to allocate ([\d.]+ \w+)", error_message(error), re.IGNORECASE)
    if isinstance(error, RuntimeError) and tried:
        return FusionError(f"The run should fit into the memory of its device; found too little for {tried[1]} more.")
    if not isinstance(error, KeyboardInterrupt):
        return error
    what = f"an end by {_signal_name(error.args[0])}" if isinstance(error, Terminated) else "an interruption"
    return FusionError(f"The run should come to its end; found {what}.").with_traceback(error.__traceback__)


def objective(result: Mapping[str, Any]) -> float | None:
    """Return what the job of a record returns to a sweeper: the value that ranks it, so that more is better.

    It is of the validation part where there is one; None if the run failed, or the value is undefined.
    """
    found = _measured(result)
    return None if found["value"] is None else rank_value(found["metric"], found["value"])


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metric``, ``value`` and ``part`` of the outcome of a job."""
    metric, part = result.get("metric", "accuracy"), "validation" if result.get("validation") else "metrics"
    return {"metric": metric, "value": (result.get(part) or {}).get(metric), "part": part}


def sentence(error: BaseException) -> str:
    """Return an error in one line: its message, after its type where the message was not written for users."""
    users = isinstance(error, FusionError | ConfigError | RegistryError)
    return error_message(error) if users else error_line(error, limit=None)
