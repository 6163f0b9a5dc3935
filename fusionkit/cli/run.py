"""The command ``fusionkit run``: a Hydra application whose configuration is checked before Hydra acts on any of it.

Hydra's own entry point makes its config loader itself and prints tracebacks; this module passes the checking loader to
Hydra and turns Hydra's errors into ``ConfigError``.  Each job runs in ``Job``, which never raises: an error is recorded
in the ``result.json`` of the job.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from fusionkit._util.machine import launched_rank
from fusionkit._util.text import error_message
from fusionkit.cli.commands import COMMANDS
from fusionkit.config.composition import CheckingLoader, Level, prepare, search_path
from fusionkit.config.explain import keys_like
from fusionkit.config.hydra_bridge import application, argument_parser, execution_whitelist
from fusionkit.config.hydra_node import HANDLERS
from fusionkit.core.allowed import FACTORIES, extra_names
from fusionkit.errors import ConfigError, Terminated, nearest

#: Seconds in which the first of several processes says what is wrong with the arguments.
_PATIENCE = 5.0


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[KEY=VALUE | OPTION]...",
)
@click.pass_context
def run(ctx: click.Context) -> int:
    """Train and evaluate: a Hydra application, which parses its arguments itself.

    Returns:
        0, or 1 if a job of a sweep failed.

    Raises:
        ConfigError: the configuration or the command line is wrong; nothing was written.
        FusionError: the run failed; its record is written.
    """
    try:
        with _termination():
            return _dispatch(*_parsed_once(ctx.args))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(error_message(error)) from error


@contextlib.contextmanager
def _termination() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise ``Terminated``, so that a run can record how it ended."""

    def end(number: int, frame: Any) -> None:
        raise Terminated(number)

    def restore(number: int, before: Any) -> None:
        if signal.getsignal(number) is end:  # ``ranks`` lets it be ignored until the process has ended.
            signal.signal(number, before)

    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:  # Otherwise nohup, or a caller in Python, has set it.
                    stack.callback(restore, number, signal.signal(number, end))
        yield


class _Parser(argparse.ArgumentParser):
    """Hydra's parser, whose errors are click's."""

    def error(self, message: str) -> NoReturn:
        """Raise an error of argparse as one of click."""
        raise click.UsageError(message, click.get_current_context(silent=True))


def _parsed_once(arguments: list[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Parse the arguments; of several processes only the first one says what is wrong with them."""
    try:
        return parse(arguments)
    except (ConfigError, click.UsageError):
        if launched_rank():
            time.sleep(_PATIENCE)  # A launcher ends all processes with the first that ends: let that be the first one.
            raise SystemExit(1) from None
        raise


def parse(arguments: list[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Parse the arguments as Hydra does, ``--from`` and ``--resume``; options and overrides may come in any order.

    Raises:
        ConfigError: an option does not exist, or options contradict each other.
        click.UsageError: any other mistake.
    """
    parser = _Parser(prog="fusionkit run", parents=[argument_parser()], add_help=False, allow_abbrev=False)
    parser.add_argument("--from", dest="source", metavar="RUN_DIR", help="Repeat the run in this directory and compare")
    parser.add_argument("--resume", metavar="RUN_DIR", help="Go on with the run in this directory from its checkpoint")
    args, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        raise ConfigError(_unknown_option(unknown[0], arguments, args.overrides, parser.format_usage()))
    if args.experimental_rerun is not None:
        # Hydra 1.3 unpickles the file.
        raise ConfigError("--experimental-rerun should not be used, because it trusts the file it is given.")
    modes = ("run", "multirun", "cfg", "info", "shell_completion", "source", "resume")
    chosen = [f"--{mode.replace('source', 'from').replace('_', '-')}" for mode in modes if getattr(args, mode)]
    if len(chosen) > 1:
        raise ConfigError(
            "Only one of --run, --multirun, --cfg, --info, --shell-completion, --from and --resume should be given; "
            f"found {', '.join(chosen)}."
        )
    if args.resume is not None and args.overrides:
        raise ConfigError(f"--resume should be given alone; found {args.overrides[0]!r}.")
    if args.resolve and args.cfg is None and not args.help:
        raise ConfigError("--resolve should be given with --cfg or --help; found neither.")
    return args, parser


def _unknown_option(option: str, arguments: list[str], overrides: list[str], usage: str) -> str:
    """Return the message for an option that does not exist; the user may mean a key of the configuration."""
    name, equals, value = option.lstrip("-").partition("=")
    found = option
    if not equals:
        value, *_ = [*arguments[arguments.index(option) + 1 :], ""]
        value = "" if value.startswith("-") or "=" in value else value
        found = f"{option} {value}".strip()
    prepare()
    loader = CheckingLoader(search_path(), "safety")
    if keys := keys_like(name, loader, [override for override in overrides if "=" in override]):
        meant = " or ".join(f"{key}={value or '...'}" for key in keys)
        return f"An override should have the form key=value; found {found!r}. Did you mean {meant}?"
    known = [flag for flag in re.findall(r"--[\w-]+", usage) if flag != "--experimental-rerun"]
    hint = nearest(option.partition("=")[0], known) or " Overrides have the form key=value."
    return f"An option of fusionkit run should be one of {', '.join(known)}; found {option!r}.{hint}"


def _dispatch(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    prepare()
    looks = args.cfg or args.info or args.shell_completion or args.help or args.hydra_help
    level: Level = "all" if not looks else "safety" if args.shell_completion or args.hydra_help else "keys"
    loader = CheckingLoader(search_path(args.config_path, args.config_dir), level)
    name = args.config_name or "config"
    # Hydra 1.4 calls only what is listed; with Hydra 1.3 there are only the checks of the loader.
    allowed = [*FACTORIES, *HANDLERS, *extra_names(), "logging.Formatter"]
    with application(loader) as hydra, execution_whitelist(allowed):
        if looks:
            _look(hydra, name, args, parser)
            return 0
        # Late: they import torch, which would slow down the completion in a shell.
        from fusionkit.experiment import ranks, repeat, resume, single, sweep

        with ranks.joined() as team:
            if team is not None and team.rank:
                return team.follow()
            if args.resume is not None:
                return resume.resume(Path(args.resume).absolute())
            if args.source is not None:
                return repeat.repeat(Path(args.source), _run_dir(hydra, name, args.overrides))
            if args.multirun:
                return sweep.run_sweep(hydra, name, args.overrides)
            return single.run_single(hydra, name, args.overrides)


def _look(hydra: Any, name: str, args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Print what ``--help``, ``--cfg`` and similar options show; no job runs."""
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
    else:
        _complete(hydra, name, args.overrides)


def _run_dir(hydra: Any, name: str, overrides: list[str]) -> Path:
    """Return the directory for the repetition of a run, which is the only thing that may be overridden."""
    for override in overrides:
        if not override.startswith("hydra.run.dir="):
            raise ConfigError(f"--from should be given alone or with hydra.run.dir=... only; found {override!r}.")
    cfg = hydra.compose_config(config_name=name, overrides=overrides, run_mode=RunMode.RUN)
    return Path(str(cfg.hydra.run.dir)).absolute()


def _complete(hydra: Any, name: str, overrides: list[str]) -> None:
    """Answer a shell: print the script to install, or the completions of the line in COMP_LINE."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if any(override.startswith("query=") for override in overrides) and words:
        program, rest = words[0], words[1:]
        if not rest or (len(rest) == 1 and not line.endswith(" ")):
            print(" ".join(command for command in COMMANDS if not rest or command.startswith(rest[0])))
            return
        if rest[0] != "run":
            return
        # Hydra completes a command line without the word `run`.
        os.environ["COMP_LINE"] = f"{program} {' '.join(rest[1:])}{' ' if line.endswith(' ') else ''}"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        hydra.shell_completion(config_name=name, overrides=overrides)
    # Hydra's script calls `PROGRAM -sc query=...`; here that is an option of the command `run`.
    print(output.getvalue().replace("$helper -sc query=", "$helper run -sc query="), end="")
