"""The command ``fusionkit new``: writes a complete plugin package, or merges a newer template into one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from fusionkit.registry.loading import Operator
from fusionkit.scaffold import generate
from fusionkit.scaffold.answers import Answers

EPILOG = """\b
Examples:
  fusionkit new fusionkit-gram --fusion gram          an operator, in the new directory fusionkit-gram
  fusionkit new fusionkit-sum --fusion wsum --parameters   one with parameters and an option
  fusionkit new fusionkit-band --fabrication band     a fabrication
  fusionkit new fusionkit-gram --update               merge the template of a newer fusionkit into a package

\b
Exit status: 0 if the package was written, 2 if nothing was."""


@click.command(epilog=EPILOG)
@click.argument("directory", metavar="DIR")
@click.option("--fusion", metavar="NAME", help="Write a fusion of this name, [a-z][a-z0-9_]*.")
@click.option("--fabrication", metavar="NAME", help="Write a fabrication of this name.")
@click.option("--parameters", is_flag=True, help="With --fusion: write one with parameters and an option.")
@click.option("--update", is_flag=True, help="Merge the installed version's template into the package in DIR.")
def new(directory: str, fusion: str | None, fabrication: str | None, parameters: bool, update: bool) -> None:
    """Write a new plugin package around one operator: code, tests and CI, which pass at once.

    DIR should be new or empty; its name becomes that of the distribution.
    """
    options = {"--fusion": fusion is not None, "--fabrication": fabrication is not None, "--update": update}
    given = [option for option, there in options.items() if there]
    if len(given) != 1:
        raise click.UsageError(
            "fusionkit new should get one of --fusion NAME, --fabrication NAME and --update; "
            f"found {' and '.join(given) or 'none'}."
        )
    if parameters and fusion is None:
        raise click.UsageError(f"--parameters should be given with --fusion; found {given[0]}.")
    target, shown = Path(os.path.abspath(directory)), shlex.quote(directory)
    if update:
        done = generate.update(target)
        print(f"merged: {shown} follows the template of fusionkit {done}; look at it with: git diff")
        return
    kind: Operator = "fusion" if fabrication is None else "fabrication"
    answers = Answers.of(target, kind, fusion or fabrication or "", parameters=parameters)
    kept = generate.new(target, answers)
    print(f"written: {shown}, the package {answers.package} with the {kind} {answers.name}")
    print(f"next: cd {shown} && pip install -e '.[test]' && pytest")
    if not kept:
        print("note: without git and a place to keep the template, this package cannot be updated to later templates")
