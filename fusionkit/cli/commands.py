"""The ``fusionkit`` command: a group that imports the module of a command when it is called, and prints its errors.

The exit status is 0 on success, 1 when what a command checks or runs fails, 2 on wrong usage.  A mistake of the user is
a sentence on stderr; ``--debug`` shows the traceback.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from fusionkit._util.distribution import install_command, version
from fusionkit._util.text import one_line
from fusionkit.errors import ConfigError, FusionError, RegistryError, Terminated, nearest

#: name of a command -> its function, as ``module:function`` below ``fusionkit.cli``, and its line in the help.
COMMANDS = {
    "list": ("catalog:list_names", "List every fusion, fabrication and data set on this machine"),
    "show": ("show:show", "Show one operator, data set or run: signature, sizes; licence, origin; summary, pictures"),
    "plugins": ("catalog:plugins", "Show which plugins are loaded, which are not, and why"),
    "check": ("check:check", "Verify that operators keep their contract"),
    "run": ("run:run", "Train and evaluate (a Hydra application)"),
    "predict": ("predict:predict", "Predict with a trained run on new data"),
    "evaluate": ("predict:evaluate", "Measure a trained run on labelled data"),
    "export": ("export:export", "Write a trained run as an ONNX or torch.export file"),
    "leaderboard": ("leaderboard:leaderboard", "Compare the runs in a directory"),
    "bench": ("bench:bench", "Measure speed and memory"),
    "study": ("study:study", "Measure accuracy against the number of parameters"),
    "conf": ("conf:conf", "Check or show the configuration"),
    "new": ("new:new", "Write a new plugin package"),
    "doctor": ("doctor:doctor", "Examine this installation, and say how to mend it"),
}
#: Former names of commands, kept for one release.
RENAMED = {"benchmark": "study"}

#: top-level module -> the extra of fusionkit that installs it.
EXTRAS = {
    "copier": "new",
    "hypothesis": "test",
    "lightning_fabric": "run",
    "matplotlib": "run",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "pandas": "run",
    "pyarrow": "parquet",
    "pytest": "test",
    "sklearn": "run",
}


class Commands(click.Group):
    """A group that imports the module of a command when the command is called; its own help imports none."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        """Import the command of that name.

        Raises:
            click.UsageError: there is none.
        """
        if name in RENAMED:
            click.echo(f"warning: the command {name!r} is deprecated: use {RENAMED[name]!r}.", err=True)
            name = RENAMED[name]
        if name not in COMMANDS:
            raise click.UsageError(f"No such command {name!r}.{nearest(name, COMMANDS)}", ctx)
        command: click.Command = imported(COMMANDS[name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  fusionkit list
  fusionkit show parameterized_concatenation dims=[76,216] n=64
  fusionkit plugins --strict""",
)
@click.version_option(version(), "-V", "--version", message="fusionkit %(version)s", help="Show the version.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error; may stand anywhere.")
def fusionkit() -> None:
    """Find, build, check and compare tensor fusion operators."""


# -- what commands share -----------------------------------------------------------------------------------------------


def imported(target: str) -> Any:
    """Import ``module:function`` below ``fusionkit.cli``, when it is called, so that the help does not import torch."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(f"fusionkit.cli.{module}"), function)


kind_option = click.option("--kind", type=click.Choice(["fusion", "fabrication", "dataset"]), help="Only this kind.")
operator_option = click.option("--kind", type=click.Choice(["fusion", "fabrication"]), help="Only this kind.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def output_file(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Return the path of a file to write, in a folder that exists; a callback of options.

    Raises:
        click.BadParameter: the path is that of a folder, or its folder does not exist.
    """
    if value is None:
        return None
    path = Path(value)
    if path.is_dir():
        raise click.BadParameter(f"{path} should be a file to write to; found a folder.")
    if not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path} should be a file in a folder that exists; found no {path.absolute().parent}.")
    return path


def print_json(value: object) -> None:
    """Print a value as JSON, in ASCII, so that it is valid in every encoding of the output."""
    print(json.dumps(value, indent=2))


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Turn a ``FusionError`` that an option caused into a ``ConfigError``, for exit status 2."""
    try:
        yield
    except FusionError as error:
        raise ConfigError(str(error)) from error


# -- running a command -------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the arguments after ``fusionkit``; by default those of the process.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = [argument for argument in given if argument != "--debug"]
    debug = len(arguments) < len(given)
    if arguments[:1] == ["help"]:  # `fusionkit help run` is `fusionkit run --help`.
        arguments = [*arguments[1:2], "--help"]
    with _streams():
        try:
            status = _invoke(arguments)
            sys.stdout.flush()
            return status
        except BrokenPipeError:  # The reader has ended, as in `fusionkit list | head`: Python should not write at exit.
            with suppress(OSError, ValueError):  # Of a stream without a file.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (FusionError, RegistryError, ConfigError, OSError, ModuleNotFoundError, KeyboardInterrupt) as error:
            sentence = _sentence(error)
            if debug or sentence is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            if isinstance(error, KeyboardInterrupt):  # As shells do: 128 plus the number of the signal.
                return 128 + int(error.args[0] if isinstance(error, Terminated) else signal.SIGINT)
            return 2 if isinstance(error, RegistryError | ConfigError) else 1


@contextmanager
def _streams() -> Iterator[None]:
    """Replace closed streams by the null device; let stdout escape characters that its encoding cannot represent."""
    with (
        open(os.devnull, "w", encoding="utf-8") as null,
        redirect_stdout(sys.stdout or null),
        redirect_stderr(sys.stderr or null),
    ):
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        yield


def _invoke(arguments: list[str]) -> int:
    """Run a command and return the exit status; its click context has the arguments as ``obj``."""
    try:
        with warnings.catch_warnings():
            # The user should see that a name is deprecated, but not which line of fusionkit used it.
            warnings.filterwarnings(
                "default", r"the (fusion|fabrication|data set) .* is deprecated", DeprecationWarning
            )
            warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
            try:
                with fusionkit.make_context("fusionkit", list(arguments), obj=arguments) as ctx:
                    return fusionkit.invoke(ctx) or 0
            finally:
                _note_quarantined(arguments)
    except click.exceptions.Exit as exit:  # --help and --version.
        return exit.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as exit:  # Of Hydra, or of a plugin.
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
        return 1 if isinstance(exit.code, str) else int(exit.code or 0)


def _note_quarantined(arguments: Sequence[str]) -> None:
    """Print which plugins are not loaded, and why, if the command used the registry."""
    lookup = sys.modules.get("fusionkit.registry.lookup")
    # The error, or the output of these commands, names them.
    if lookup is None or lookup.strict() or arguments[:1] in (["plugins"], ["doctor"]):
        return
    for plugin in lookup.quarantined():
        print(f"note: the plugin {plugin.title} is not loaded: {one_line(str(plugin.error))}", file=sys.stderr)


def _sentence(error: BaseException) -> str | None:
    """Return the message for the user; None for an error that is a bug, whose traceback is shown."""
    if isinstance(error, KeyboardInterrupt):
        what = "terminated" if isinstance(error, Terminated) else "interrupted"
        return ": ".join([what, *getattr(error, "__notes__", [])])
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        if extra := EXTRAS.get(missing):
            return f"{missing!r} should be installed: {install_command(extra)}; found no such module"
        return None
    return one_line(str(error))
