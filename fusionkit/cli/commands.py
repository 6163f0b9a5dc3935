"""The ``fusionkit`` command: finds the module of a command, imports that one alone, and words its errors.

A command is a function ``main(argv) -> int`` that parses its own arguments.  The status is 0 on success, 1 when what it
checks or runs fails, 2 on wrong usage.  A mistake of the user is one sentence on stderr; ``--debug`` shows more.
"""

from __future__ import annotations

import codecs
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple, TextIO

from fusionkit.errors import ConfigError, FusionError, RegistryError, Terminated, nearest

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """Where a command is, and its line in the help."""

    module: str
    summary: str
    function: str = "main"

    @property
    def exists(self) -> bool:
        """Whether its module is part of this installation.  Imports nothing."""
        return Path(__file__).parents[2].joinpath(*self.module.split(".")).with_suffix(".py").is_file()

    def __call__(self, argv: Sequence[str]) -> int:
        """Import the module and run the command."""
        status: int = getattr(importlib.import_module(self.module), self.function)(argv)
        return status


COMMANDS = {
    "list": Command("fusionkit.cli.catalog", "list every fusion and fabrication on this machine", "list_names"),
    "show": Command("fusionkit.cli.catalog", "show one of them: signature, formula, traits, sizes", "show"),
    "plugins": Command("fusionkit.cli.catalog", "say which plugins loaded, which did not, and why", "plugins"),
    "check": Command("fusionkit.cli.check", "prove that operators keep their contract"),
    "run": Command("fusionkit.cli.run", "train and evaluate (a Hydra application)"),
    "leaderboard": Command("fusionkit.experiment.leaderboard", "compare the runs in a directory"),
    "bench": Command("fusionkit.cli.bench", "measure speed and memory"),
    "benchmark": Command("fusionkit.cli.study", "measure accuracy against the number of parameters"),
    "conf": Command("fusionkit.cli.conf", "check or show the configuration"),
    "new": Command("fusionkit.cli.new", "write a new plugin package"),
}

# Top-level modules that only an extra installs.
EXTRAS = {
    "copier": "new",
    "hypothesis": "test",
    "lightning_fabric": "run",
    "matplotlib": "run",
    "pytest": "test",
    "sklearn": "run",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the arguments after ``fusionkit``; by default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    with _streams():
        return _main([argument for argument in arguments if argument != "--debug"], debug)


def _main(arguments: list[str], debug: bool) -> int:
    try:
        with warnings.catch_warnings():
            # A deprecated name is the user's business here, and the line of ours that used it is not.
            warnings.filterwarnings("default", r"the (fusion|fabrication) .* is deprecated", DeprecationWarning)
            warnings.showwarning = _show_warning
            try:
                status = _dispatch(arguments)
            finally:
                _note_quarantined(arguments)
        sys.stdout.flush()
    except SystemExit as exit:  # argparse leaves this way.
        return _status(exit.code)
    except BrokenPipeError:  # `fusionkit list | head`: nobody is left to tell.
        with suppress(OSError, ValueError):  # No file stands behind the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (FusionError, RegistryError, ConfigError, OSError, ModuleNotFoundError, KeyboardInterrupt) as error:
        sentence = _sentence(error)
        if debug or sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return _failure(error)
    return status


@contextmanager
def _streams() -> Iterator[None]:
    r"""Let everything be printed: to nowhere where a stream is closed, and as \\u2297 what its encoding has not (⊗).

    That escape is JSON's too.
    """
    codecs.register_error("fusionkit", _escaped)
    before = []
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                stack.callback(setattr, sys, name, None)
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                before.append((stream, stream.errors))
                stream.reconfigure(errors="fusionkit")
        try:
            yield
        finally:
            for stream, errors in before:
                with suppress(OSError, ValueError):  # Nobody reads it any more.
                    stream.reconfigure(errors=errors)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Escape what cannot be encoded, in units of UTF-16 as JSON does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first in ("", "-h", "--help") or arguments == ["help"]:
        print(_help(), file=sys.stdout if first else sys.stderr)
        return 0 if first else 2
    if first in ("-V", "--version"):
        print(f"fusionkit {importlib.import_module('fusionkit').__version__}")
        return 0
    name, rest = (arguments[1], ["--help"]) if first == "help" else (first, arguments[1:])
    offered = _offered()
    if name in offered:
        return offered[name](rest)
    print(
        f"error: the command should be one of {', '.join(offered)}; found {name!r}.{nearest(name, offered)}",
        file=sys.stderr,
    )
    return 2


def _note_quarantined(arguments: Sequence[str]) -> None:
    """Say which plugins are not loaded, and why, if the command has asked for plugins at all."""
    registry = sys.modules.get("fusionkit.registry.lookup")
    if registry is None or registry.strict() or arguments[:1] == ["plugins"]:  # An error, or the output, says so.
        return
    for plugin in registry.quarantined():
        print(f"note: the plugin {plugin.title} is not loaded: {plugin.error}", file=sys.stderr)


def _offered() -> dict[str, Command]:
    return {name: command for name, command in COMMANDS.items() if command.exists}


def _help() -> str:
    commands = "\n".join(f"  {name:<12} {command.summary}" for name, command in _offered().items())
    return f"""\
usage: fusionkit [-h] [--version] [--debug] COMMAND ...

Find, build, check and compare tensor fusion operators.

commands:
{commands}

options:
  -h, --help   show this help; after a command, that of the command
  --version    show the version
  --debug      show the traceback of an error, anywhere on the line

examples:
  fusionkit list
  fusionkit show parameterized_concatenation dims=[76,216] n=64
  fusionkit plugins --strict"""


def _sentence(error: BaseException) -> str | None:
    """Return what to tell the user, or None where the error is not the user's."""
    if isinstance(error, KeyboardInterrupt):
        what = "terminated" if isinstance(error, Terminated) else "interrupted"
        return ": ".join([what, *getattr(error, "__notes__", [])])
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(missing)
        return (
            f"{missing!r} should be installed: pip install 'fusionkit[{extra}]'; found no such module"
            if extra
            else None
        )
    return " ".join(str(error).split())


def _failure(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 128 + int(error.args[0] if isinstance(error, Terminated) else 2)  # As a shell reports it of a signal.
    return 2 if isinstance(error, RegistryError | ConfigError) else 1


def _status(code: object) -> int:
    """Return the exit status that Python would make of ``sys.exit(code)``."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=file or sys.stderr)
