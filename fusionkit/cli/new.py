"""``fusionkit new``: writes a complete plugin package, or merges a newer template into one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusionkit.cli.arguments import Parser
from fusionkit.errors import ConfigError
from fusionkit.scaffold import generate
from fusionkit.scaffold.answers import Answers

if TYPE_CHECKING:
    from fusionkit.registry.loading import Kind

__all__ = ["main"]

EPILOG = """\
examples:
  fusionkit new fusionkit-gram --fusion gram          an operator, in the new directory fusionkit-gram
  fusionkit new fusionkit-band --fabrication band     a fabrication
  fusionkit new fusionkit-gram --update               merge the template of a newer fusionkit into a package

exit status: 0 if the package was written, 2 if it was not; then nothing was
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status.

    Raises:
        ConfigError: a directory or a name that cannot be, or copier is not installed.
    """
    options = _parser().parse_args(argv)
    target = Path(os.path.abspath(options.directory))
    given = [f"--{what}" for what in ("fusion", "fabrication", "update") if getattr(options, what) not in (None, False)]
    if len(given) != 1:
        raise ConfigError(
            "fusionkit new should get one of --fusion NAME, --fabrication NAME and --update; "
            f"found {' and '.join(given) or 'none'}."
        )
    shown = shlex.quote(options.directory)
    if options.update:
        done = generate.update(target)
        print(f"merged: {shown} follows the template of fusionkit {done}; look at it with: git diff")
        return 0
    kind: Kind = "fusion" if options.fusion is not None else "fabrication"
    answers = Answers.of(target, kind, getattr(options, kind))
    kept = generate.new(target, answers)
    print(f"written: {shown}, the package {answers.package} with the {kind} {answers.name}")
    print(f"next: cd {shown} && pip install -e '.[test]' && pytest")
    if not kept:
        print("note: without git, and a place for the template, this package cannot be updated to later templates")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="fusionkit new",
        description="Write a new plugin package around one operator: code, config, tests, CI; green at once.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("directory", metavar="DIR", help="new or empty; its name is that of the distribution")
    add("--fusion", metavar="NAME", help="write a fusion of this name, [a-z][a-z0-9_]*")
    add("--fabrication", metavar="NAME", help="write a fabrication of this name")
    add("--update", action="store_true", help="merge the installed version's template into the package in DIR")
    return parser
