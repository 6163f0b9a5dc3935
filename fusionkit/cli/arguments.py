"""The parser of the commands: a wrong command line is one sentence, as every other mistake is."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from fusionkit.errors import ConfigError, nearest

__all__ = ["Parser", "check_folder"]


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are ``ConfigError``: what should be, what was found, and the nearest name.

    It takes no abbreviations, and prints the examples at the end of its help as they are written.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise a ``ConfigError`` for what argparse complains about."""
        raise ConfigError(self._sentence(message))

    def flags(self) -> list[str]:
        """Return the long options, those of subcommands too."""
        return list(dict.fromkeys(flag for flag in self._flags() if flag.startswith("--")))

    def _flags(self) -> Iterator[str]:
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._flags()

    def _sentence(self, message: str) -> str:
        if found := re.fullmatch(r"unrecognized arguments: (\S+).*", message, re.DOTALL):
            return self._unrecognized(found[1])
        if found := re.fullmatch(r"the following arguments are required: (.*)", message):
            # Where options may stand between arguments, optional ones are named as well.
            needed = [name for name, action in self._arguments() if action.nargs not in ("*", "?")]
            return f"{self.prog} should get {' '.join(needed) or found[1]}; found none."
        match = re.fullmatch(r"argument ([^:]+): (.*)", message, re.DOTALL)
        if match is None:
            return f"{self.prog} should be called as its --help says; found: {message}."
        name, complaint = _long(match[1]), match[2]
        if found := re.match(r"invalid choice: (.+?) \(choose from ", complaint):
            value = found[1].strip("'\"")
            known = self._choices(name)
            subject = f"{name} should be" if name.startswith("-") else f"{self.prog} should get"
            return f"{subject} one of {', '.join(known)}; found {value!r}.{nearest(value, known)}"
        if found := re.fullmatch(r"invalid (\w+) value: (.*)", complaint, re.DOTALL):
            kind = {"int": "an integer", "float": "a number"}.get(found[1], found[1])
            return f"{name} should be {kind}; found {found[2]}."
        if found := re.fullmatch(r"expected (.*)", complaint):
            return f"{name} should be followed by {found[1]}; found none."
        if found := re.fullmatch(r"ignored explicit argument (.*)", complaint, re.DOTALL):
            return f"{name} should stand without a value; found {found[1]}."
        if found := re.fullmatch(r"not allowed with argument (.*)", complaint):
            return f"{name} should not stand beside {_long(found[1])}; found both."
        return f"{name} {complaint.removeprefix('it ')}."

    def _unrecognized(self, found: str) -> str:
        if not found.startswith("-"):
            expected = " ".join(name for name, _ in self._arguments()) or "options only"
            return f"{self.prog} should get {expected}; found {found!r} besides."
        known = self.flags()
        hint = nearest(found.partition("=")[0], known)
        return f"An option of {self.prog} should be one of {', '.join(known)}; found {found!r}.{hint}"

    def _arguments(self) -> Iterator[tuple[str, argparse.Action]]:
        """Yield the arguments that are no options, with the names that people read."""
        for action in self._actions:
            if not action.option_strings:
                yield str(action.metavar or action.dest), action

    def _choices(self, name: str) -> list[str]:
        for action in self._actions:
            if name in (*action.option_strings, action.metavar, action.dest):
                return [str(choice) for choice in action.choices or ()]
        return []


def check_folder(file: Path | None) -> None:
    """Raise a ``ConfigError`` where a file that is to be written has no folder, or is one; None is none."""
    if file is not None and file.is_dir():
        raise ConfigError(f"{file} should be a file to write to; found a folder.")
    if file is not None and not file.absolute().parent.is_dir():
        raise ConfigError(f"{file} should be a file in a folder that exists; found no {file.absolute().parent}.")


def _long(name: str) -> str:
    """Return the long one of ``-x/--example``."""
    return max(name.split("/"), key=len)
