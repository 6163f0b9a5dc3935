"""``fusionkit run``: a Hydra application whose configuration is checked before Hydra acts on any of it.

Hydra's own entry point builds its config loader itself and prints tracebacks; this driver gives it the checking
loader and words its errors.  Each job runs in ``Job``, which never raises: what goes wrong is in the job's
``result.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusionkit.errors import ConfigError, DimsError, FusionError, RegistryError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from fusionkit.config.composition import CheckingLoader, Level

__all__ = ["Job", "Outcome", "main"]

#: Where the jobs of a sweep leave their outcomes, inside the sweep's directory.
OUTCOMES = ".outcomes"


class Outcome(NamedTuple):
    """How one job of a sweep ended."""

    directory: str
    number: int
    status: str
    error: str | None
    overrides: tuple[str, ...]


@dataclass
class Job:
    """The task function of Hydra: checks the config of one job, runs it, and records how it ended.

    It is sent to the workers of a launcher, so it holds plain data only.

    Attributes:
        sweep: the directory for outcomes if this is a sweep, else None.
        error: what a single run ended with, None if it completed.
    """

    sweep: str | None = None
    error: BaseException | None = field(default=None, compare=False)

    def __call__(self, task: DictConfig) -> float | None:
        """Run one job and return its accuracy, None if it failed.  Only an interruption passes through."""
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        run_dir = Path(hydra.runtime.output_dir).absolute()
        overrides = tuple(hydra.overrides.task)
        result: Mapping[str, Any] | None = None
        error: BaseException | None = None
        number = 0 if self.sweep is None else int(hydra.job.num)
        self._note(Outcome(str(run_dir), number, "started", None, overrides))
        try:
            result = self._run(task, run_dir)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            error = raised
        status = "failed" if error is not None else str((result or {}).get("status"))
        message = _sentence(error) if error is not None else (result or {}).get("error")
        self._note(Outcome(str(run_dir), number, status, message, overrides))
        if status != "completed":
            self.error = error if error is not None else FusionError(str(message))
            if self.sweep is not None:
                self.error = None  # It need not survive the way back from a worker.
            return None
        return _accuracy(result)

    def _run(self, task: DictConfig, run_dir: Path) -> Mapping[str, Any]:
        from fusionkit.experiment.results import write_failed

        cfg: dict[str, Any] = {}
        try:
            from fusionkit.config import interpolations
            from fusionkit.config.composition import plain_config
            from fusionkit.config.preflight import preflight
            from fusionkit.config.schema import validate

            cfg = plain_config(task)
            validate(cfg)
            done = _completed(cfg, run_dir) if self.sweep is not None else None
            if done is not None:
                print(f"completed   earlier, in {os.path.relpath(run_dir)}")
                return done
            # A preset, or an override, writes its fabrication out instead of referring to the group.
            written = interpolations.raw(task)["fusion"].get("parameter_fabrication")
            preflight(cfg, fabrication_of_group=written == "${fabrication}")
            from fusionkit.experiment.run import run_job

            return run_job(cfg, run_dir)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raised = _with_advice(error, cfg)
            write_failed(run_dir, cfg, raised)
            raise raised from (None if raised is error else error)

    def _note(self, outcome: Outcome) -> None:
        """Leave the outcome where the process that started the sweep finds it, whatever launcher ran the job."""
        if self.sweep is None:
            return
        folder = Path(self.sweep)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{outcome.number}.json"
        temporary = folder / f".{file.name}.{os.getpid()}"
        temporary.write_text(json.dumps(outcome._asdict()), encoding="utf-8")
        temporary.replace(file)


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


def _with_advice(error: BaseException, cfg: Mapping[str, Any]) -> BaseException:
    """Return the error, with the way out where unequal widths are the trouble."""
    model = cfg.get("model")
    bare = isinstance(model, Mapping) and model.get("encoder") == "none"
    text = str(error)
    if isinstance(error, DimsError) and bare and "equal width" in text and "model.encoder" not in text:
        return DimsError(f"{text.rstrip('.')}.  model.encoder=linear makes the views equally wide.")
    return error


def _accuracy(result: Mapping[str, Any] | None) -> float | None:
    value = ((result or {}).get("metrics") or {}).get("accuracy")
    return float(value) if isinstance(value, int | float) and value == value else None


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, FusionError | ConfigError | RegistryError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class JobFailed(FusionError):
    """A run that ended with an error; its record is in the run directory."""


# -- the application ---------------------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """Run ``fusionkit run ARGV``.

    Returns:
        0, or 1 if a job of a sweep failed.

    Raises:
        ConfigError: the configuration or the command line is wrong; nothing was written.
        FusionError: the run failed; its record is written.
    """
    arguments = [argument for argument in argv if argument != "--debug"]
    with _one_sentence():
        args, parser = _parse(arguments)
        return _dispatch(args, parser)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn every error of Hydra and OmegaConf into one of fusionkit's."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (FusionError, ConfigError, RegistryError):
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split()) or type(error).__name__) from error


def _parse(argv: list[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.prog = "fusionkit run"
    args = parser.parse_intermixed_args(argv)
    if args.experimental_rerun is not None:
        # Hydra 1.3 unpickles the file.
        raise ConfigError("--experimental-rerun should not be used, because it trusts the file it is given.")
    chosen = [
        option
        for option, given in (
            ("--run", args.run),
            ("--multirun", args.multirun),
            ("--cfg", args.cfg is not None),
            ("--info", args.info is not None),
            ("--shell-completion", args.shell_completion),
        )
        if given
    ]
    if len(chosen) > 1:
        raise ConfigError(
            "Only one of --run, --multirun, --cfg, --info and --shell-completion should be given; "
            f"found {', '.join(chosen)}."
        )
    if args.resolve and args.cfg is None and not args.help:
        raise ConfigError("--resolve should stand beside --cfg or --help; found it alone.")
    return args, parser


def _dispatch(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    from fusionkit.config.composition import CheckingLoader, prepare, search_path

    prepare()
    runs = not (args.cfg or args.info or args.shell_completion or args.help or args.hydra_help)
    level: Level = "all" if runs else "safety" if args.shell_completion or args.hydra_help else "keys"
    loader = CheckingLoader(search_path(args.config_path, args.config_dir), level)
    name = args.config_name or "config"
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="fusionkit", config_loader=loader)
    GlobalHydra.instance().initialize(hydra)
    try:
        with _whitelist():
            if args.help:
                try:
                    hydra.app_help(config_name=name, args_parser=parser, args=args)
                except ConfigError:
                    raise
                except (KeyError, ValueError) as error:
                    raise ConfigError(f"hydra.help.template should use Hydra's placeholders; found {error}.") from error
            elif args.hydra_help:
                hydra.hydra_help(config_name=name, args_parser=parser, args=args)
            elif args.cfg:
                hydra.show_cfg(name, args.overrides, args.cfg, args.package, args.resolve)
            elif args.info:
                hydra.show_info(args.info, config_name=name, overrides=args.overrides)
            elif args.shell_completion:
                _complete(hydra, name, args.overrides)
            elif args.multirun or _mode(loader, name, args.overrides) == "MULTIRUN":
                return _multirun(hydra, name, args.overrides)
            else:
                return _run(hydra, name, args.overrides)
        return 0
    finally:
        GlobalHydra.instance().clear()


def _mode(loader: CheckingLoader, name: str, overrides: list[str]) -> str:
    """Return the mode the configuration asks for: an experiment may be a sweep."""
    from hydra.types import RunMode

    cfg = loader.load_configuration(
        config_name=name, overrides=overrides, run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False
    )
    return "RUN" if cfg.hydra.mode is None else str(cfg.hydra.mode.name)


def _run(hydra: Any, name: str, overrides: list[str]) -> int:
    job = Job()
    hydra.run(config_name=name, task_function=job, overrides=[*overrides, "hydra.mode=RUN"])
    if job.error is not None:
        if isinstance(job.error, FusionError | ConfigError | RegistryError):
            raise job.error
        raise JobFailed(_sentence(job.error)) from job.error
    return 0


def _multirun(hydra: Any, name: str, overrides: list[str]) -> int:
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException
    from hydra.types import RunMode

    from fusionkit.config import interpolations

    lines = [*overrides, "hydra.mode=MULTIRUN"]
    master = hydra.compose_config(config_name=name, overrides=lines, run_mode=RunMode.MULTIRUN)
    if "max_failure_rate" in master.hydra.sweeper and not any("max_failure_rate" in line for line in lines):
        # Optuna would stop at the first trial without a value; here that is a recorded job like any other.
        lines.append("hydra.sweeper.max_failure_rate=1.0")
    if "${" in interpolations.raw(master)["hydra"]["sweep"]["dir"]:
        # The time in its name should not pass on between two compositions.
        lines.append(f"hydra.sweep.dir={QuotedString(str(master.hydra.sweep.dir), Quote.double).with_quotes()}")
    sweep_dir = Path(str(master.hydra.sweep.dir)).absolute()
    before = sweep_dir.is_dir(), (sweep_dir / "multirun.yaml").is_file()
    outcomes = sweep_dir / OUTCOMES / uuid.uuid4().hex[:12]
    job = Job(sweep=str(outcomes))
    stopped: str | None = None
    try:
        hydra.multirun(config_name=name, task_function=job, overrides=lines)
    except ConfigError:
        _tidy(sweep_dir, *before)
        raise
    except (FusionError, RegistryError, OSError):
        raise
    except Exception as error:
        if isinstance(error, HydraException) and not outcomes.is_dir():
            # Refused by the sweeper or the launcher before the first job.
            _tidy(sweep_dir, *before)
            raise
        # A worker that was killed, a cluster that is not there, a study without a single value: no job's error.
        stopped = _sentence(error)
        cause = error
    finally:
        ended = _collect(outcomes)
    failed = [outcome for outcome in ended if outcome.status != "completed"]
    if failed:
        print(f"error: {len(failed)} of {len(ended)} jobs failed:", file=sys.stderr)
    for outcome in failed:
        what = " ".join(outcome.overrides) or outcome.directory
        print(f"  {what}: {outcome.error or 'it did not end'}", file=sys.stderr)
    if stopped is not None:
        raise FusionError(f"The sweep should come to its end; found {stopped}") from cause
    return 1 if failed else 0


def _collect(folder: Path) -> list[Outcome]:
    """Read and remove what the jobs of a sweep left."""
    found = []
    for file in folder.glob("*.json") if folder.is_dir() else ():
        content = json.loads(file.read_text(encoding="utf-8"))
        found.append(Outcome(**{**content, "overrides": tuple(content["overrides"])}))
        file.unlink()
    for empty in (folder, folder.parent):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()
    return sorted(found, key=lambda outcome: outcome.number)


def _tidy(sweep_dir: Path, existed: bool, had_yaml: bool) -> None:
    """Remove what Hydra wrote for a sweep that was refused before its first job."""
    if not had_yaml:
        (sweep_dir / "multirun.yaml").unlink(missing_ok=True)
    if not existed and sweep_dir.is_dir() and not any(sweep_dir.iterdir()):
        sweep_dir.rmdir()


def _whitelist() -> Any:
    """Return a context in which Hydra 1.4 calls nothing but what is listed; on 1.3 the loader's checks stand alone."""
    from hydra import utils

    execution_whitelist: Any = getattr(utils, "execution_whitelist", None)
    if execution_whitelist is None:
        return nullcontext()
    from fusionkit.config.hydra_node import HANDLERS
    from fusionkit.config.safe import FACTORIES, extra_names

    return execution_whitelist([*FACTORIES, *HANDLERS, *extra_names(), "logging.Formatter"])


def _complete(hydra: Any, name: str, overrides: list[str]) -> None:
    """Answer a shell: print the script to install, or the completions of the line in COMP_LINE."""
    import contextlib
    import io

    from fusionkit.cli import COMMANDS

    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if any(override.startswith("query=") for override in overrides) and words:
        program, rest = words[0], words[1:]
        if not rest or (len(rest) == 1 and not line.endswith(" ")):
            print(" ".join(command for command in COMMANDS if not rest or command.startswith(rest[0])))
            return
        if rest[0] != "run":
            return
        # Hydra knows nothing of the word `run`.
        os.environ["COMP_LINE"] = f"{program} {' '.join(rest[1:])}{' ' if line.endswith(' ') else ''}"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        hydra.shell_completion(config_name=name, overrides=overrides)
    # The script asks the program by `PROGRAM -sc query=...`; here that is a command of it.
    print(output.getvalue().replace("$helper -sc query=", "$helper run -sc query="), end="")
