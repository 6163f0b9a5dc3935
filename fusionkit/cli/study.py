"""The command ``fusionkit study``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fusionkit.cli.commands import imported, json_option
from fusionkit.study import DATA

EPILOG = """\b
Examples:
  fusionkit study --quick
  fusionkit study --out study --repeats 3
  fusionkit study --missing
  fusionkit study --sets --add 'model.encoder=mlp train.input_dropout=0.05'
  fusionkit study --plugin bilinear
  fusionkit study --data digits --add 'fabrication=lowrank fabrication.r=3' --set train.epochs=30
  fusionkit leaderboard study --html report.html"""


@click.command(epilog=EPILOG)
@click.argument("more_data", nargs=-1, metavar="")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Directory of the study (default: study).")
@click.option("--quick", is_flag=True, help="A handful of contestants, one repeat of three folds.")
@click.option("--missing", is_flag=True, help="Only the contestants of the table of missing views.")
@click.option("--sets", is_flag=True, help="Only the default, on every data set that is there, beside scikit-learn.")
@click.option("--data", multiple=True, metavar="NAME[=PATH]", help=f"Data sets (default: {', '.join(DATA)}).")
@click.option("--repeats", type=click.IntRange(1), help="Number of repeats (default: 2, with --quick 1).")
@click.option("--folds", type=click.IntRange(2), help="Number of folds (default: 5, with --quick 3).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first repeat.")
@click.option("--add", multiple=True, metavar="OVERRIDES", help="Add a contestant.")
@click.option("--plugin", multiple=True, metavar="NAME", help="Add a plugin's operators, in the first repeat only.")
@click.option("--set", "options", multiple=True, metavar="OVERRIDE", help="Set an option for all contestants.")
@click.option("--workers", type=click.IntRange(1), help="Number of processes (default: of CPUs).")
@json_option
@click.pass_context
def study(ctx: click.Context, /, **options: Any) -> int:
    """Measure accuracy against the number of learnable parameters l, and with missing views.

    Compares operators x fabrications x ranks with the dense concatenation and with scikit-learn's logistic regression
    and RBF SVM, in the same repeated stratified folds of three real data sets, also with missing and with noisy views.
    A second table has the accuracy by the rate of missing views, without and with view dropout
    (train.view_dropout=0.5), for some of the contestants and all that are added.

    --sets makes another table: what the default, and the configs of --add, reach on every registered data set that is
    there, in five folds or on the given test part, with the metric of its task.

    Takes about 24 minutes on two cores, --missing about 7.  When the command is repeated, completed trainings are
    skipped.
    """
    # The name of the command is also that of the files: `benchmark` continues its own.
    status: int = imported("study_run:run_study")(str(ctx.info_name), ctx.obj, **options)
    return status
