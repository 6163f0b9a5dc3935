"""The commands ``fusionkit predict`` and ``fusionkit evaluate``: a trained run on new data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fusionkit.cli.commands import imported, json_option, output_file

_run_dir = click.argument("run_dir", metavar="RUN_DIR", type=click.Path(path_type=Path))
_overrides = click.argument("overrides", metavar="data.path=FILE", nargs=-1)
_device = click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, ...")


@click.command(
    epilog="""\b
Examples:
  fusionkit run data=table data.path=patients.csv data.label=outcome data.id=patient hydra.run.dir=first
  fusionkit predict first data.path=new.csv --out predictions.csv
  fusionkit predict first 'data.path={rna: rna.csv, scan: scan.csv}' --out predictions.parquet
  fusionkit predict second data.path=FOLDER --out predictions.npz"""
)
@_run_dir
@_overrides
@click.option("--out", required=True, callback=output_file, metavar="FILE", help="A .csv, .npz or .parquet file.")
@_device
@click.option(
    "--batch-size", type=click.IntRange(1), default=10_000, show_default=True, help="Rows to predict at a time."
)
def predict(**options: Any) -> None:
    """Predict with a trained run on new data of the same form, which need no label.

    The columns of the file are the id, or row from 0, then prediction and probability_CLASS; for several targets
    prediction_TARGET; for several labels prediction_LABEL and probability_LABEL.  Rows keep their order.
    """
    imported("predict_run:predict")(**options)


@click.command(
    epilog="""\b
Examples:
  fusionkit evaluate first data.path=labelled.csv
  fusionkit evaluate first data.path=labelled.csv --json"""
)
@_run_dir
@_overrides
@_device
@json_option
def evaluate(**options: Any) -> None:
    """Measure a trained run on labelled data of the same form."""
    imported("predict_run:evaluate")(**options)
