"""A sweep: runs its jobs with any launcher, shows all of them, and goes on when a process dies.

The jobs write their states to a folder of the sweep's directory (``job.Outcome``), which the process that started the
sweep locks.  A folder without a lock belongs to a sweep that was killed, possibly by a job that was running then: when
the sweep is resumed, each of these jobs gets its own process.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Container, Iterator, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode

from fusionkit._util.files import TEMPORARY
from fusionkit._util.progress import ProgressBar
from fusionkit._util.text import count_of, duration
from fusionkit.config.hydra_bridge import BASIC_SWEEPER, number_of_jobs, raw
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import ranks
from fusionkit.experiment.job import EXPECTED, MAX_TRIES, NOT_APPLICABLE, Job, Outcome, directory_lock, sentence
from fusionkit.experiment.metrics import numeral
from fusionkit.experiment.results import check_own, shown

#: The folder inside the sweep's directory for the states of the jobs.
OUTCOMES = ".outcomes"
#: The greatest number of jobs of a sweep, which Hydra lists and composes before the first.
MAX_JOBS = 10_000


def run_sweep(hydra: Any, name: str, overrides: Sequence[str]) -> int:
    """Run the sweep that the config ``name`` and the overrides describe.

    Args:
        hydra: Hydra, with a checking loader.
        name: of the primary config.
        overrides: of the command line.

    Returns:
        0, or 1 if a job failed; they are listed on stderr.

    Raises:
        ConfigError: the sweep was refused before its first job; nothing was written.
        FusionError: the directory cannot be written to, or the sweep stopped before its end.
    """
    if (team := ranks.team()) is not None:
        should = "A sweep should be started by one process, and its jobs by train.devices or a launcher of Hydra"
        raise ConfigError(f"{should}; found {team.size} processes.")
    sweep = _composed(hydra, name, overrides)
    for own in (OUTCOMES, "multirun.yaml"):
        check_own(sweep.directory / own, sweep.directory)
    tidy = _tidying(sweep.directory)
    try:
        with _folder(sweep.directory) as (folder, suspects), Watch(folder, sweep.total, sweep.swept) as watch:
            stopped = sweep.run(Job(str(folder), suspects, sweep.subdir), watch)
            outcomes = watch.read()
        if stopped is not None and not outcomes:
            tidy()
    except (ConfigError, HydraException):
        tidy()
        raise
    except OSError as error:
        raise FusionError(f"The directory of a sweep should be writable; found {sweep.directory}: {error}.") from error
    if not sweep.basic:
        _tell_part(outcomes)
    return _conclude(watch, outcomes, sweep.directory, stopped)


@dataclass(frozen=True)
class _Sweep:
    """A composed sweep.

    Attributes:
        start: Hydra's function that composes the sweep once more and runs the task function that it is given.
        directory: of the sweep.
        timed: whether the name of the directory contains the time.
        basic: whether Hydra's own sweeper runs it, which can be started again.
        total: number of jobs, None if only the sweeper knows.
        swept: the keys in which the jobs differ.
        subdir: the folder in a job's directory for the composed configs, None for none.
    """

    start: Callable[..., Any]
    directory: Path
    timed: bool
    basic: bool
    total: int | None
    swept: Set[str]
    subdir: str | None

    def run(self, job: Job, watch: Watch) -> Exception | None:
        """Run the jobs, and again those whose process died; return the error that stopped the sweep before its end."""
        progress, stopped = -1, None
        # Repeat while a round tries or ends a job.  Jobs that had started and not ended get their own processes.
        while (events := sum(min(state.tries, MAX_TRIES) + state.ended for state in watch.read())) > progress:
            progress = events
            try:
                self.start(task_function=job)
                return None
            except KeyboardInterrupt as error:
                where = f" with hydra.sweep.dir={shlex.quote(shown(self.directory))}" if self.timed else ""
                counts = _counts([outcome for outcome in watch.read() if outcome.ended], watch.total)
                error.add_note(f"{counts}; the same command{where} runs the rest")
                raise
            except Exception as error:
                # The sweeper or the launcher refused the sweep before its first job, or a file cannot be written.
                refused = isinstance(error, HydraException) and not watch.read()
                if refused or (isinstance(error, EXPECTED) and not _foreign(error)):
                    raise
                # A worker was killed, a cluster is absent, a study has no value at all.
                stopped = error
                if not self.basic:
                    break
        return stopped


def _foreign(error: Exception) -> bool:
    """Whether an error of the operating system concerns no file, as that of a launcher that finds no cluster."""
    return isinstance(error, OSError) and error.filename is None


def _composed(hydra: Any, name: str, overrides: Sequence[str]) -> _Sweep:
    lines = [*overrides, "hydra.mode=MULTIRUN"]
    master = hydra.compose_config(config_name=name, overrides=lines, run_mode=RunMode.MULTIRUN)
    if "max_failure_rate" in master.hydra.sweeper and not any("max_failure_rate" in line for line in lines):
        # Optuna would stop at the first trial without a value; here a failed job does not stop the others.
        lines.append("hydra.sweeper.max_failure_rate=1.0")
    if isinstance(master.hydra.sweeper.get("direction"), Enum):
        # Optuna's default, minimize; a user's choice is text.  What a job returns is the better, the greater it is.
        lines.append("hydra.sweeper.direction=maximize")
    node = raw(master)["hydra"]
    timed, directory = "${" in node["sweep"]["dir"], os.path.expanduser(str(master.hydra.sweep.dir))
    ray = node["launcher"].get("ray", {}).get("init", {})
    if ray.get("address") is not None:
        directory = os.path.abspath(directory)  # The workers of a cluster that is running are in another one.
        if "object_store_memory" not in ray:  # The launcher would set it, and such a cluster takes none.
            lines.append("+hydra.launcher.ray.init.object_store_memory=null")
    if timed or directory != str(master.hydra.sweep.dir):
        # Compositions at different times should give the same name.
        lines.append(f"hydra.sweep.dir={QuotedString(directory, Quote.double).with_quotes()}")
    sweeper = node["sweeper"]
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    lines.append("hydra.output_subdir=null")  # ``save_composed`` writes it.
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    parsed = parser.parse_overrides([*params, *node["overrides"]["task"]])
    basic, trials = sweeper.get("_target_") == BASIC_SWEEPER, sweeper.get("n_trials")
    total = number_of_jobs(parsed) if basic else trials if isinstance(trials, int) else None
    if total is not None and total > MAX_JOBS:
        raise ConfigError(f"A sweep should have at most {MAX_JOBS} jobs; found {total}.")
    return _Sweep(
        partial(hydra.multirun, config_name=name, overrides=lines),
        directory=Path(directory).absolute(),
        timed=timed,
        basic=basic,
        total=total,
        swept={override.get_key_element() for override in parsed if override.is_sweep_override()},
        subdir=master.hydra.output_subdir,
    )


@contextlib.contextmanager
def _folder(sweep_dir: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """Lock a new folder for outcomes; yield it and the run directories of jobs that were killed in earlier sweeps."""
    root = sweep_dir / OUTCOMES
    folder = root / uuid.uuid4().hex[:12]
    with contextlib.ExitStack() as stack:
        with directory_lock(root):
            suspects = frozenset(_killed(root))
            stack.enter_context(directory_lock(folder))
        try:
            yield folder, suspects
        finally:
            with directory_lock(root):
                _remove(folder)
                with contextlib.suppress(OSError):  # Another sweep uses it.
                    root.rmdir()


def _killed(root: Path) -> Iterator[str]:
    """Yield the run directories of jobs that were killed, and remove the outcomes of their sweeps."""
    for folder in (entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink()):
        try:
            with directory_lock(folder, wait=False):
                yield from (outcome.directory for outcome in _read(folder) if not outcome.ended)
                _remove(folder)
        except FusionError:  # The sweep is running.
            continue


def _remove(folder: Path) -> None:
    """Remove the outcomes in a folder, and the folder if it contains nothing else."""
    with contextlib.suppress(OSError):
        for file in (*folder.glob("[0-9]*.json"), *folder.glob(f"{TEMPORARY}*")):
            file.unlink(missing_ok=True)
        folder.rmdir()


def _read(folder: Path, known: Container[str] = ()) -> Iterator[Outcome]:
    """Yield the outcomes in a folder, but those of the numbers that are ``known``."""
    files = (file for file in folder.glob("[0-9]*.json") if file.stem not in known)
    for file in filter(Path.is_file, files):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # From another release, or damaged.
            yield Outcome.read(file)


def _tidying(directory: Path) -> Callable[[], None]:
    """Return a function that removes the files of a sweep that ended before its first job, but no older ones."""
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    file = directory / "multirun.yaml"
    kept = file.is_file()

    def tidy() -> None:
        if not kept:
            file.unlink(missing_ok=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    return tidy


def _tell_part(outcomes: Sequence[Outcome]) -> None:
    """Print a line if a sweeper that compares jobs was given values of the test part."""
    given = [outcome for outcome in outcomes if outcome.value is not None]
    if test := [outcome for outcome in given if outcome.part == "metrics"]:
        jobs = count_of(len(given), "job")
        print(f"{len(test)} of {jobs} ranked by the test part, because there is no validation part")


def _conclude(watch: Watch, outcomes: Sequence[Outcome], sweep_dir: Path, stopped: Exception | None) -> int:
    """Print how the jobs ended and return the exit status."""
    # The sweep is over: a job that has not ended was killed.
    unfit = [outcome for outcome in outcomes if outcome.status == NOT_APPLICABLE]
    failed = [outcome for outcome in outcomes if outcome.status not in ("completed", NOT_APPLICABLE)]
    if outcomes or stopped is None:
        jobs, took = count_of(len(outcomes), "job"), duration(watch.clock() - watch.begun)
        board = f"fusionkit leaderboard {shlex.quote(shown(sweep_dir))}"
        print(f"{jobs} in {took}: {_counts(outcomes, watch.total)}; compare them by: {board}")
    for outcome in unfit:
        print(f"not applicable: {watch.title(outcome)}: {outcome.error}", file=sys.stderr)
    if failed:
        print(f"error: {len(failed)} of {len(outcomes)} jobs failed:", file=sys.stderr)
    for outcome in failed:
        print(f"  {watch.title(outcome)}: {outcome.error or 'it did not end'} ({_directory(outcome)})", file=sys.stderr)
    if stopped is not None:
        raise FusionError(f"The sweep should come to its end; found {sentence(stopped)}") from stopped
    return 1 if failed else 0


def _counts(outcomes: Sequence[Outcome], total: int | None) -> str:
    """Return how many jobs completed, failed, are not applicable, and did not run."""
    completed = sum(outcome.status == "completed" for outcome in outcomes)
    earlier = sum(outcome.earlier for outcome in outcomes)
    unfit = sum(outcome.status == NOT_APPLICABLE for outcome in outcomes)
    others = {
        "failed": len(outcomes) - completed - unfit,
        NOT_APPLICABLE: unfit,
        "not run": max(0, (total or 0) - len(outcomes)),
    }
    text = f"{completed} completed" + (f" ({earlier} of them earlier)" if earlier else "")
    return ", ".join([text, *(f"{count} {what}" for what, count in others.items() if count)])


class Watch:
    """Shows the jobs of a sweep as they end, a line each, and on a terminal a bar with the time left.

    Args:
        folder: to which the jobs write their outcomes.
        total: number of jobs, None if unknown.
        swept: the keys in which the jobs differ.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        folder: Path,
        total: int | None,
        swept: Set[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.total, self.swept, self.clock = folder, total, swept, clock
        self.begun = clock()
        self.outcomes: dict[int, Outcome] = {}
        self._first: float | None = None
        self._lock, self._stop = Lock(), Event()
        self._thread = Thread(target=self._watch, name="fusionkit-sweep", daemon=True)
        self._bar = ProgressBar(total, interval=math.inf)

    def __enter__(self) -> Watch:
        self._bar.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._bar.__exit__(*error)

    def read(self) -> list[Outcome]:
        """Show the jobs that have ended since the last call; return the state of all that have started, by number."""
        with self._lock:
            # One that has ended does not change: reading thousands of them again would cost more than the jobs.
            ended = {str(number) for number, outcome in self.outcomes.items() if outcome.ended}
            for outcome in sorted(_read(self.folder, ended), key=lambda outcome: outcome.number):
                before = self.outcomes.get(outcome.number)
                self.outcomes[outcome.number] = outcome
                if self._first is None and not outcome.earlier:
                    self._first = self.clock()
                if outcome.ended and (before is None or not before.ended):
                    self._show(outcome)
            found = [outcome for _, outcome in sorted(self.outcomes.items())]
            failed, left = sum(outcome.status == "failed" for outcome in found), self.left()
            texts = [f"{failed} failed" if failed else "", "" if left is None else f"{duration(left)} left"]
            jobs = f"jobs {sum(outcome.ended for outcome in found)}/{self.total or '?'}"
            self._bar.update(sum(outcome.fraction for outcome in found), jobs, "  ".join(filter(None, texts)))
            return found

    def left(self) -> float | None:
        """Return the seconds that the rest will take at the rate so far; None if no estimate is possible."""
        new = [outcome for outcome in self.outcomes.values() if not outcome.earlier]
        done = sum(outcome.fraction for outcome in new)
        if self.total is None or self._first is None or done <= 0:
            return None
        rest = self.total - (len(self.outcomes) - len(new)) - done
        return max(0.0, (self.clock() - self._first) / done * rest)

    def title(self, outcome: Outcome) -> str:
        """Return the overrides that distinguish a job, or its directory."""
        named = [override for override in outcome.overrides if override.partition("=")[0] in self.swept]
        return " ".join(named or outcome.overrides) or _directory(outcome)

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.read()

    def _show(self, outcome: Outcome) -> None:
        ended = sum(one.ended for one in self.outcomes.values())
        parts = [f"{ended}/{self.total or '?'}", "earlier" if outcome.earlier else outcome.status]
        if outcome.value is not None:
            part = "validation " if outcome.part == "validation" else ""
            parts.append(f"{part}{outcome.metric} {numeral(outcome.metric, outcome.value)}")
        if outcome.seconds is not None and not outcome.earlier and outcome.status != NOT_APPLICABLE:
            parts.append(f"{outcome.seconds:.1f} s")
        # The errors follow at the end.
        places = [] if outcome.status == NOT_APPLICABLE else [_directory(outcome)]
        parts += dict.fromkeys((self.title(outcome), *places))
        if outcome.resumed is not None and not outcome.earlier:
            parts.append(f"resumed after {outcome.resumed}")
        left = self.left()
        if self._bar.lines and left:
            parts.append(f"({duration(left)} left)")
        self._bar.say("  ".join(parts))


def _directory(outcome: Outcome) -> str:
    return shown(Path(outcome.directory))
