"""The command ``fusionkit check``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from fusionkit.cli.commands import imported, operator_option, output_file

EPILOG = """\b
Examples:
  fusionkit check                                       everything that is registered
  fusionkit check summation --tier 1                    one operator, the quick checks
  fusionkit check my_package.gram:Gram                  a class that is not registered
  fusionkit check gram --select 'config_*' --json -     some checks, as JSON
  fusionkit check --list                                the checks, their tiers and rules

\b
Exit status: 0 if every check passed or was skipped, 1 if one failed, 2 on wrong usage."""


def _names(ctx: click.Context, param: click.Parameter, given: Iterable[str]) -> list[str]:
    return [name.strip() for one in given for name in one.split(",") if name.strip()]


@click.command(epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@operator_option
@click.option("--tier", type=click.IntRange(1, 3), help="Run checks up to this tier (default: 2).")
@click.option("--select", multiple=True, callback=_names, metavar="CHECK", help="Only these checks; patterns too.")
@click.option("--skip", multiple=True, callback=_names, metavar="CHECK", help="Leave out these checks.")
@click.option("--case", help="Only this case, such as 'dims=[4, 4]'.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random views and parameters.")
@click.option(
    "--time-limit", type=float, default=60.0, show_default=True, help="Seconds of processor time per check and case."
)
@click.option("-x", "--exitfirst", "stop", is_flag=True, help="Stop at the first failure.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="Worker processes (default: at most 2).")
@click.option("--json", "json_file", callback=output_file, metavar="FILE", help="Write JSON; - is the standard output.")
@click.option("--junit", "junit_file", callback=output_file, metavar="FILE", help="Write JUnit XML.")
@click.option("--list", "listed", is_flag=True, help="List the checks and run nothing.")
@click.option("-v", "--verbose", is_flag=True, help="Print every finding, and why checks were skipped.")
def check(**options: Any) -> int:
    """Verify that operators keep their contract.

    NAME is a registered name or module:Class; by default everything that is registered is checked.
    """
    status: int = imported("check_run:run_checks")(**options)
    return status
