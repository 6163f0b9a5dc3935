"""One job of ``fusionkit run``: checks its config, runs it, and records how it ended; it never raises.

In a sweep a job may run in any process of any launcher.  It leaves its state in a file of its own, in the folder that
the process which started the sweep reads, and holds its run directory, so that nobody else uses that meanwhile.
"""

from __future__ import annotations

import contextlib
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
from typing import TYPE_CHECKING, Any

from fusionkit.errors import ConfigError, DimsError, FusionError, RegistryError, Terminated

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["Job", "Outcome", "held", "perform", "sentence"]

#: A job says how far it is at most this often, in seconds.
_INTERVAL = 0.5


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
        file = folder / f"{self.number}.json"
        temporary = folder / f".{file.name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
            temporary.replace(file)

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
        suspects: run directories of jobs whose process was lost earlier; these get a process of their own.
        error: what a single run ended with, None if it completed.
    """

    sweep: str | None = None
    suspects: frozenset[str] = frozenset()
    error: BaseException | None = field(default=None, compare=False)

    def __call__(self, task: DictConfig) -> float | None:
        """Run one job and return its accuracy, None if it failed.  Only an interruption passes through."""
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        run_dir = Path(hydra.runtime.output_dir).absolute()
        if self.sweep is None:
            return self._single(task, run_dir)
        mine = Outcome(str(run_dir), int(hydra.job.num), "started", overrides=tuple(hydra.overrides.task))
        with held(run_dir):
            return self._swept(task, run_dir, mine, Path(self.sweep))

    def _single(self, task: DictConfig, run_dir: Path) -> float | None:
        try:
            with held(run_dir, wait=False):
                result = _checked(task, run_dir, lambda cfg: _run(cfg, run_dir))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
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
        earlier = False
        mine.write(folder)

        def run(cfg: dict[str, Any]) -> Mapping[str, Any]:
            nonlocal earlier
            done = _completed(cfg, run_dir)
            earlier = done is not None
            if done is not None:
                return done
            if alone:
                return _run_alone(cfg, run_dir)
            return _run(cfg, run_dir, quiet=True, report=_Reporter(mine, str(folder)))

        try:
            result = _checked(task, run_dir, run)
            ended = replace(mine, status=str(result.get("status")), error=result.get("error"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            result, ended = {}, replace(mine, status="failed", error=sentence(error))
        _settle()
        accuracy = _accuracy(result) if ended.status == "completed" else None
        seconds = time.perf_counter() - begun
        replace(ended, seconds=seconds, accuracy=accuracy, fraction=1.0, earlier=earlier).write(folder)
        return accuracy


@cache
def _settle() -> None:
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
def held(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes that ask for ``directory`` from it, as long as this one lives.  It is made if needed.

    Args:
        directory: to be held by itself: no file is left, and what a killed process held is free again.
        wait: until it is free.

    Raises:
        FusionError: it is not free, and ``wait`` is false.
    """
    import fcntl

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


def perform(cfg: dict[str, Any], run_dir: Path, action: Any, *, fabrication_of_group: bool) -> Mapping[str, Any]:
    """Run a checked config by ``action(cfg)``; what goes wrong or ends it is recorded before it is raised."""
    import torch

    from fusionkit.config.fits import preflight
    from fusionkit.experiment.results import tell, write_failed

    place, dtype = os.getcwd(), torch.get_default_dtype()
    try:
        preflight(cfg, fabrication_of_group=fabrication_of_group)
        found: Mapping[str, Any] = action(cfg)
        return found
    except _Recorded as recorded:
        raise FusionError(str(recorded)) from None
    except BaseException as error:
        raised = _with_advice(_ended(error), cfg)
        try:
            if _completed(cfg, run_dir) is None:  # Else what went wrong is not the run, but to show it.
                tell(write_failed(run_dir, cfg, raised), run_dir)
        except OSError as problem:
            raise FusionError(f"{sentence(raised).rstrip('.')}; it could not be recorded: {problem}.") from error
        if isinstance(error, KeyboardInterrupt):
            raise
        raise raised from (None if raised is error else error)
    finally:  # What a stranger's operator has changed is not the next job's business.
        os.chdir(place)
        torch.set_default_dtype(dtype)


def _checked(task: DictConfig, run_dir: Path, action: Any) -> Mapping[str, Any]:
    """Check the config of a task, and perform it."""
    from fusionkit.config import interpolations
    from fusionkit.config.composition import plain_config
    from fusionkit.config.options import validate
    from fusionkit.experiment.results import write_failed

    cfg: dict[str, Any] = {}
    try:
        cfg = plain_config(task)
        validate(cfg)
    except Exception as error:
        write_failed(run_dir, cfg, error)
        raise
    # A preset, or an override, writes its fabrication out instead of referring to the group.
    written = interpolations.raw(task)["fusion"].get("parameter_fabrication")
    return perform(cfg, run_dir, action, fabrication_of_group=written == "${fabrication}")


def _run(cfg: dict[str, Any], run_dir: Path, **options: Any) -> Mapping[str, Any]:
    from fusionkit.experiment.run import run_job

    return run_job(cfg, run_dir, **options)


# -- a process of its own ----------------------------------------------------------------------------------------------


class _Recorded(Exception):
    """The job has failed in its own process, which has written its record."""


def _run_alone(cfg: dict[str, Any], run_dir: Path) -> Mapping[str, Any]:
    """Run a job that may end the process it runs in."""
    from fusionkit.experiment.results import RESULT, read_result, start

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
    with contextlib.suppress(BaseException):
        perform(cfg, run_dir, lambda cfg: _run(cfg, run_dir, quiet=True), fabrication_of_group=True)


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
    from fusionkit.config.hashing import config_hash
    from fusionkit.experiment.results import MODEL, RESULT, read_result

    try:
        found = read_result(run_dir / RESULT)
    except FusionError:
        return None
    same = found.get("config_hash") == config_hash(cfg)
    return found if same and found["status"] == "completed" and (run_dir / MODEL).is_file() else None


def _ended(error: BaseException) -> BaseException:
    """Return the error; of an interruption, or where torch found too little memory, what a record says of it."""
    from fusionkit.experiment.results import message

    tried = re.search(r"tried to allocate ([\d.]+ \w+)", message(error), re.IGNORECASE)
    if isinstance(error, RuntimeError) and tried:
        return FusionError(f"The run should fit into the memory of its device; found too little for {tried[1]} more.")
    if not isinstance(error, KeyboardInterrupt):
        return error
    what = f"an end by {signal.Signals(error.args[0]).name}" if isinstance(error, Terminated) else "an interruption"
    return FusionError(f"The run should come to its end; found {what}.").with_traceback(error.__traceback__)


def _with_advice(error: BaseException, cfg: Mapping[str, Any]) -> BaseException:
    """Return the error, with the way out where unequal widths are the trouble."""
    if not isinstance(error, DimsError):
        return error
    model = cfg.get("model")
    bare = isinstance(model, Mapping) and model.get("encoder") == "none"
    text = str(error)
    if bare and "equal width" in text and "model.encoder" not in text:
        return DimsError(f"{text.rstrip('.')}.  model.encoder=linear makes the views equally wide.")
    return error


def _accuracy(result: Mapping[str, Any]) -> float | None:
    value = (result.get("metrics") or {}).get("accuracy")
    return float(value) if isinstance(value, int | float) and value == value else None


def sentence(error: BaseException) -> str:
    """Return an error in one line: its message, after its type where the message was not written for users."""
    from fusionkit.experiment.results import message

    name, text = type(error).__name__, " ".join(message(error).split())
    return text if isinstance(error, FusionError | ConfigError | RegistryError) or text == name else f"{name}: {text}"
